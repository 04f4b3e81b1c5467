import pytest
import torch
from torch.testing import assert_close

from retclip.core.errors import InputError
from retclip.segmenters.fcclip.export import OUTPUTS, ImageSide, export_image_side
from tests.absence import require_library

SIZE = (64, 96)


@pytest.fixture
def images():
    return torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def expected(tiny, images):
    with torch.no_grad():
        return ImageSide(tiny)(images)


def test_torch_export_gives_the_same_numbers(tiny, images, tmp_path):
    export_image_side(tiny, SIZE, tmp_path / "side.pt2")
    loaded = torch.export.load(tmp_path / "side.pt2").module()
    for ours, theirs in zip(expected(tiny, images), loaded(images), strict=True):
        assert_close(theirs, ours, atol=2e-4, rtol=0)


def test_onnx_gives_the_same_numbers(tiny, images, tmp_path):
    require_library("onnxscript", "export")
    require_library("onnxruntime", "export")
    import onnxruntime

    export_image_side(tiny, SIZE, tmp_path / "side.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "side.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == list(OUTPUTS)
    for ours, theirs in zip(expected(tiny, images), session.run(None, {"images": images.numpy()}), strict=True):
        assert_close(torch.from_numpy(theirs), ours, atol=2e-4, rtol=0)


def test_other_endings_and_sizes_are_refused(tiny, tmp_path):
    with pytest.raises(InputError) as raised:
        export_image_side(tiny, SIZE, tmp_path / "side.pkl")
    assert raised.value.code == "E177"
    with pytest.raises(ValueError, match="multiples of 32"):
        export_image_side(tiny, (60, 96), tmp_path / "side.pt2")
