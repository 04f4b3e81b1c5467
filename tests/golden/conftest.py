"""Cases and class-name files of the official FC-CLIP numbers."""

import pytest

from tests.goldens import goldens_folder


def pytest_generate_tests(metafunc):
    """Cases `e2e_*` and `full_*` are the folders that this set holds; a set without any asks for one that is absent."""
    for fixture, pattern in (("end_to_end_folder", "e2e_*"), ("full_folder", "full_*")):
        if fixture in metafunc.fixturenames:
            found = sorted(path.name for path in (goldens_folder() / "fcclip").glob(pattern))
            metafunc.parametrize(fixture, found or [pattern], scope="module")


@pytest.fixture(scope="session")
def class_name_files(test_data):
    """Reader of the released class-name files: data set -> name lines of its valid classes, in file order."""

    def read(data_set):
        lines = (test_data / "text" / "fcclip_class_names" / f"{data_set}_with_prompt_eng.txt").read_text().splitlines()
        entries = [line.split(":", 1) for line in lines]
        return [names for number, names in entries if number != "0" and names != "invalid_class_id"]

    return read
