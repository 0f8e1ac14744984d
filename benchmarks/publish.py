"""Write what was measured into README.md, docs/performance.md, docs/serving.md and docs/upscaling.md.

    python -m benchmarks.publish            measure Table 1 of the shipped checkpoints, ask a real server, then fill
    python -m benchmarks.publish --fill     fill the documents from what was measured before

Accuracies come from each checkpoint's config.json, where `ccnet train` or `ccnet evaluate --write` put them; Table 1
and the answer of the quick start from `benchmarks/results/published.json`, which this script writes; times and memory
from the results that `ccnet bench --save` and `python -m benchmarks.serving --save` keep (`benchmarks/blocks.py`);
gains of the upscaler from those of `python -m benchmarks.upscaling --save` (`benchmarks/upscaling_blocks.py`).
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.blocks import measured_blocks, source
from benchmarks.report import RESULTS, where
from benchmarks.upscaling_blocks import upscaling_blocks
from ccnet import load_checkpoint
from ccnet.data import load_dataset
from ccnet.equivariance import noise_images, table1

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("performance", "serving", "upscaling")))
PUBLISHED = RESULTS / "published.json"
CHECKPOINTS = {"CCNet": "fashion-mnist-ccnet", "ConvNet": "fashion-mnist-convnet"}
SAMPLES, SEED, PORT = 1000, 0, 8765
PAPER_TABLE_1 = {  # cosine of (Baseline, CC-net) at each max shift
    "CIFAR-10 images": {2: (0.90, 0.92), 4: (0.78, 0.85), 6: (0.65, 0.77)},
    "noise": {2: (0.80, 0.91), 4: (0.67, 0.85), 6: (0.56, 0.85)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fill", action="store_true", help="measure nothing; fill from the stored results")
    if not parser.parse_args().fill:
        PUBLISHED.parent.mkdir(exist_ok=True)
        measured = {"table1": measure_table1(), "answer": ask_a_server()}
        published = {**measured, "samples": SAMPLES, "seed": SEED, **where()}
        PUBLISHED.write_text(json.dumps(published, indent=1) + "\n", encoding="utf-8")
    for document in DOCUMENTS:
        document.write_text(filled(document.read_text(encoding="utf-8")), encoding="utf-8")


def filled(text: str) -> str:
    """A document with its measured blocks, `<!-- name -->` to `<!-- /name -->`, made anew."""
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    configs = {
        name: json.loads((ROOT / "checkpoints" / folder / "config.json").read_text(encoding="utf-8"))
        for name, folder in CHECKPOINTS.items()
    }
    blocks = {
        "answer": f"```json\n{json.dumps(published['answer'], indent=2)}\n```",
        "results": accuracy_block(configs) + "\n\n" + table1_block(published),
        **measured_blocks(),
        **upscaling_blocks(),
    }
    for name, block in blocks.items():
        pattern = re.compile(rf"<!-- {name} -->.*?<!-- /{name} -->", re.DOTALL)
        marked = f"<!-- {name} -->\n{block}\n<!-- /{name} -->".replace("\\", r"\\")
        text = pattern.sub(marked, text)
    return text


def accuracy_block(configs: dict[str, dict[str, Any]]) -> str:
    """Accuracy of one sequence, of ensembles, and of ConvNet, from the checkpoints' own measurements."""
    cc, conv = configs["CCNet"]["metrics"], configs["ConvNet"]["metrics"]
    rows = [f"| ConvNet | {conv['accuracy']:.2%} | {conv['nll']:.4f} |"]
    for row in cc["ensembles"]:
        members = "one sequence" if row["size"] == 1 else f"ensemble of {row['size']}"
        rows.append(
            f"| CCNet, {members} | {row['accuracy_mean']:.2%} ± {row['accuracy_std']:.2%} | {row['nll_mean']:.4f} |"
        )
    recipe = configs["CCNet"]["training"]["config"]
    return "\n".join(
        [
            f"Accuracy on all {cc['n']:,} test images of Fashion-MNIST, both networks trained for {recipe['epochs']}",
            f"epochs with the recipe `{recipe['recipe']}` and initial weights `{recipe.get('init', 'default')}` (one",
            "seed each), measured from the shipped files:",
            "",
            "| network | accuracy | negative log-likelihood |",
            "| --- | --- | --- |",
            *rows,
            "",
            f"Mean ± standard deviation over {cc['draws']} draws from {len(cc['sequences'])} sequences. "
            + source("ccnet evaluate", cc),
        ]
    )


def table1_block(published: dict[str, Any]) -> str:
    """Shift-equivariance of the last map beside the paper's."""
    lines = [
        "Shift-equivariance as in the paper's Table 1 (cosine of the last maps after shifting back;",
        f"{published['samples']:,} images, 95% interval over images):",
        "",
        "| input | max shift | ConvNet | CCNet | same label (ConvNet, CCNet) | paper: baseline, CC-net |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    papers = {"dataset": "CIFAR-10 images", "noise": "noise"}
    for kind, rows in published["table1"].items():
        for conv, cc in zip(rows["ConvNet"], rows["CCNet"], strict=True):
            paper = PAPER_TABLE_1[papers[kind]][conv["max_shift"]]
            cosines = [f"{r['cosine_mean']:.3f} ({r['ci95'][0]:.3f} to {r['ci95'][1]:.3f})" for r in (conv, cc)]
            same = f"{conv['consistency']:.1%}, {cc['consistency']:.1%}"
            lines.append(
                f"| {'Fashion-MNIST' if kind == 'dataset' else 'noise'} | ±{conv['max_shift']} | {cosines[0]} "
                f"| {cosines[1]} | {same} | {paper[0]:.2f}, {paper[1]:.2f} ({papers[kind]}) |"
            )
    return "\n".join([*lines, "", source("python -m benchmarks.publish", published)])


def measure_table1() -> dict[str, dict[str, list[dict[str, object]]]]:
    """Rows of Table 1 for both networks, on test images and on noise."""
    pictures = load_dataset("fashion-mnist", "test").first(SAMPLES).images
    results: dict[str, dict[str, list[dict[str, object]]]] = {"dataset": {}, "noise": {}}
    for name, folder in CHECKPOINTS.items():
        checkpoint = load_checkpoint(ROOT / "checkpoints" / folder)
        preprocessing = checkpoint.preprocessing
        noise = noise_images(SAMPLES, (preprocessing.channels, *preprocessing.input_size), SEED)
        measured = {
            "dataset": table1(checkpoint.model, checkpoint.preprocess(pictures), seed=SEED, fill=preprocessing.black),
            "noise": table1(checkpoint.model, noise, seed=SEED, fill=0.0),
        }
        for kind, rows in measured.items():
            results[kind][name] = [row.row() for row in rows]
            print(name, kind, [round(row.cosine_mean, 3) for row in rows], flush=True)
    return results


def ask_a_server() -> dict[str, Any]:
    """The quick start's request to a real server on a port of its own; the answer without times and ids."""
    environment = {**os.environ, "CCNET_PORT": str(PORT), "CCNET_CHECKPOINTS": str(ROOT / "checkpoints")}
    server = subprocess.Popen([sys.executable, "-m", "service"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{PORT}"
        wait_until_ready(url)
        picture = (ROOT / "docs" / "pictures" / "sneaker.png").read_bytes()
        options = {"ensemble_size": 4, "seed": 7, "top_k": 2}
        answer = httpx.post(f"{url}/v1/classify", params=options, files={"images": picture}, timeout=60)
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return {key: document[key] for key in ("model", "ensemble_size", "seed", "results")}
    finally:
        server.terminate()
        server.wait(timeout=60)


def wait_until_ready(url: str, timeout_s: float = 60) -> None:
    """Return when the server has loaded its models."""
    give_up = time.monotonic() + timeout_s
    while time.monotonic() < give_up:
        try:
            if httpx.get(f"{url}/health/ready").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"the server at {url} was not ready within {timeout_s} s")


if __name__ == "__main__":
    main()
