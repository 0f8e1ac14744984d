"""Whole ensembles as a GPU program beside the specification, under Triton's interpreter or on a GPU.

Run like `gpu_kernel_checks.py`. The members are chosen to have few phases, because the interpreter takes milliseconds a
step; on a GPU the same tests also draw members as a service does.
"""

import threading
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ccnet import CCNet, CcnetError, ScaleEnsemble, ScaleSequence, sample_scale_sequences
from ccnet import ensemble as ensemble_module
from ccnet.gpu import EnsembleProgram
from ccnet.gpu import program as program_module
from ccnet.gpu.tiling import candidate_tiles, default_tile

kernel = pytest.importorskip("ccnet.gpu.kernel", reason="Triton is not installed", exc_type=ImportError)

SIZE = (8, 8)
TOLERANCE = {"ieee": 1e-4, "tf32": 5e-3, "bf16": 3e-2}  # ||out - ref|| / ||ref|| of the logits
MEMBERS = tuple(
    ScaleSequence.parse(text)
    for text in (
        "1 1/2 1/2 1 1 1 1 1",
        "1 1/2 3/4 2/3 1 1 1 1 x 1 1/2 1 1/2 1 1 1 1",
        "1 1/2 1/2 1 1 1 1 1",  # the first again
        "1 3/4 1 1/2 2/3 1 1 1",
    )
)


@pytest.fixture
def device() -> str:
    if kernel.INTERPRETED:
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU, or TRITON_INTERPRET=1")
    return "cuda"


@pytest.fixture
def gpu(device: str) -> str:
    if device == "cpu":
        pytest.skip("needs a GPU")
    return device


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    """Under the interpreter, whose time goes by steps of the inner loop, as few of them as there can be."""
    if kernel.INTERPRETED:
        monkeypatch.setattr(
            program_module, "default_tile", lambda *layer: replace(default_tile(*layer), depth=layer[1])
        )


def network(device: str, channels: int = 3, in_size: tuple[int, int] = SIZE) -> CCNet:
    torch.manual_seed(20061120)
    return CCNet(channels, 7, in_size=in_size).eval().to(device)


def specification(model: CCNet, x: Tensor, sequences) -> Tensor:
    """Member logits [k, N, classes] of the `standard` backend in float64."""
    exact = CCNet(**model.config, backend="standard").double().eval()
    exact.load_state_dict({name: value.cpu() for name, value in model.state_dict().items()})
    with torch.inference_mode():
        return torch.stack([exact(x.cpu().double(), sequence) for sequence in sequences])


def assert_near(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    assert actual.dtype == torch.float32
    error = float((actual.cpu().double() - expected).norm() / expected.norm())
    assert error <= tolerance, f"relative error {error:.2e}, allowed {tolerance:.0e}"  # NaN is not


@pytest.mark.parametrize("precision", ["ieee", "bf16", "tf32"])
def test_member_logits_agree_with_the_specification(precision, device, generator):
    model, x = network(device), torch.randn(3, 3, *SIZE, generator=generator)
    program = EnsembleProgram(model, MEMBERS, precision=precision)
    assert_near(program(x.to(device)), specification(model, x, MEMBERS), TOLERANCE[precision])


@pytest.mark.slow
def test_sampled_members_agree_with_the_specification(device, generator):
    members = sample_scale_sequences(2, seed=5, in_size=SIZE)
    model, x = network(device, 1), torch.randn(1, 1, *SIZE, generator=generator)
    assert_near(EnsembleProgram(model, members)(x.to(device)), specification(model, x, members), TOLERANCE["ieee"])


def test_shared_prefixes_and_equal_members_are_computed_once_and_a_layer_is_one_launch(device, monkeypatch):
    program = EnsembleProgram(network(device), MEMBERS)
    assert program.nodes == (1, 2, 3, 3, 3, 3, 3, 3)
    launches: list[int] = []
    apply_layer = kernel.apply_layer

    def counted(x, weights, bias, tables, *arguments, **options):
        launches.append(tables.out_pixels)
        apply_layer(x, weights, bias, tables, *arguments, **options)

    monkeypatch.setattr(kernel, "apply_layer", counted)
    logits = program(torch.rand(1, 3, *SIZE, device=device))
    assert launches == [64, 16 + 36, 4 + 3 * 4 + 36, 4 + 2 * 2 + 3 * 3, 12, 12, 12, 12]
    assert torch.equal(logits[0], logits[2])
    assert not torch.equal(logits[0], logits[1])


def test_a_program_describes_itself(device):
    program = EnsembleProgram(network(device), MEMBERS, precision="bf16")
    assert program.describe().tiles == {}
    program(torch.rand(1, 3, *SIZE, device=device))
    description = program.describe()
    assert description.device.startswith(device)
    assert (description.precision, description.interpreted) == ("bf16", kernel.INTERPRETED)
    assert (description.members, description.nodes) == (4, (1, 2, 3, 3, 3, 3, 3, 3))
    assert (description.graph, description.recorded) == (False, ())
    assert description.slots[0] == 1
    assert [len(sizes) for sizes in description.tiles.values()] == [8]
    weights = sum(layer.weights.nbytes for layer in program.layers)
    assert weights < program.nbytes == description.nbytes < weights + 4_000_000


def test_images_are_cut_and_padded_to_buckets_without_touching_each_other(device, generator):
    x = torch.randn(3, 3, *SIZE, generator=generator).to(device)
    whole = EnsembleProgram(network(device), MEMBERS[:1])
    cut = EnsembleProgram(network(device), MEMBERS[:1], max_images=2)
    together = whole(x)
    torch.testing.assert_close(cut(x), together, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(whole(x[2:]), together[:, 2:], rtol=1e-5, atol=1e-5)
    assert list(whole.describe().tiles) == [1, 4]
    assert list(cut.describe().tiles) == [1, 2]
    assert whole(x[:0]).shape == (1, 0, 7)


def test_later_changes_of_the_network_and_modes_of_the_caller_do_not_matter(device, generator):
    model, x = network(device), torch.randn(1, 3, *SIZE, generator=generator).to(device)
    expected = specification(model, x, MEMBERS[:1])
    with torch.inference_mode():
        program = EnsembleProgram(model, MEMBERS[:1])
        first = program(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    with torch.autocast(device, dtype=torch.bfloat16):
        second = program(x.double().requires_grad_())
    assert_near(first, expected, TOLERANCE["ieee"])
    assert torch.equal(first, second)
    assert not second.requires_grad


def test_other_tiles_give_the_same_logits(device, generator):
    x = torch.randn(1, 3, *SIZE, generator=generator).to(device)
    program = EnsembleProgram(network(device), MEMBERS[:1])
    expected = program(x)
    others = [
        candidate_tiles(program.rows_per_slot(j, 1), layer.weights.shape[-2], layer.weights.shape[-1], "ieee")[-1]
        for j, layer in enumerate(program.layers)
    ]
    assert others != program.tile_sizes(1)
    program.set_tile_sizes(1, others)
    assert program.describe().tiles[1] == tuple(others)
    torch.testing.assert_close(program(x), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(CcnetError, match="8; got 1"):
        program.set_tile_sizes(1, others[:1])


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (1, 3, 8, 12), (3, 8, 8)])
def test_images_of_another_shape_are_refused(shape, device):
    program = EnsembleProgram(network(device), MEMBERS[:1])
    with pytest.raises(CcnetError, match=r"takes floating point images \[N, 3, 8, 8\]"):
        program(torch.zeros(shape, device=device))
    with pytest.raises(CcnetError, match=r"got torch.uint8"):
        program(torch.zeros(1, 3, 8, 8, dtype=torch.uint8, device=device))


def test_graphs_are_refused_where_there_are_none(device):
    if device == "cuda":
        pytest.skip("a GPU has graphs")
    with pytest.raises(CcnetError, match=r"graph=True records CUDA graphs.*cpu"):
        EnsembleProgram(network(device), MEMBERS, graph=True)


@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16"])
def test_ensembles_as_a_service_draws_them_agree_with_the_specification(precision, gpu, generator):
    model, x = network(gpu, 3, (32, 32)), torch.randn(3, 3, 32, 32, generator=generator)
    members = sample_scale_sequences(3, seed=7)
    program = EnsembleProgram(model, members, precision=precision)
    assert_near(program(x.to(gpu)), specification(model, x, members), TOLERANCE[precision])


@pytest.mark.parametrize("precision", ["ieee", "bf16"])
def test_a_replayed_graph_gives_what_launches_give(precision, gpu, generator):
    model, members = network(gpu, 3, (32, 32)), sample_scale_sequences(4, seed=1)
    eager = EnsembleProgram(model, members, precision=precision)
    replayed = EnsembleProgram(model, members, precision=precision, graph=True)
    for images in (1, 3, 5, 2, 1, 8):
        x = torch.randn(images, 3, 32, 32, generator=generator).to(gpu)
        kept = replayed(x)
        expected = eager(x)
        replayed(torch.randn_like(x))  # must not write into what was handed out before
        # The kernel gives the same bits; torch may choose another way for the fully connected layers.
        assert_near(kept, expected.cpu().double(), 1e-5 if precision == "ieee" else 1e-2)
    assert replayed.describe().recorded == (1, 2, 4, 8)
    assert replayed.describe().graph


def test_threads_with_streams_of_their_own_share_a_graph(gpu, generator):
    model, members = network(gpu, 3, (32, 32)), sample_scale_sequences(4, seed=1)
    program = EnsembleProgram(model, members, graph=True)
    inputs = [torch.randn(2, 3, 32, 32, generator=generator).to(gpu) for _ in range(4)]
    expected = [program(x).clone() for x in inputs]
    torch.cuda.synchronize()
    wrong: list[int] = []

    def work(i: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(50):
                if not torch.equal(program(inputs[i]), expected[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_ensemble_runs_as_a_program_and_sees_changed_weights(device, monkeypatch):
    monkeypatch.setattr(ensemble_module, "supports", lambda _device: True)
    model, x = network(device), torch.rand(2, 3, *SIZE, device=device)
    ensemble = ScaleEnsemble(model)
    for _ in range(3):
        output = ensemble(x, sequences=MEMBERS[:2])
        with torch.no_grad():
            expected = torch.stack([model(x, member) for member in MEMBERS[:2]])
        torch.testing.assert_close(output.member_logits, expected, rtol=0, atol=1e-4)
    assert ensemble.plans.stats.hits == 1
    with torch.no_grad():
        model.get_parameter("head.5.bias").add_(1)
    changed = ensemble(x, sequences=MEMBERS[:2])
    torch.testing.assert_close(changed.member_logits, expected + 1, rtol=0, atol=1e-4)
