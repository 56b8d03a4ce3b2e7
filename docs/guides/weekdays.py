"""What the guide "From activations to a causal claim" needs besides the stages: prompts, and weekday directions.

  python docs/guides/weekdays.py artifacts/activations/NAME weekdays

writes into the folder weekdays: prompts.jsonl, questions about weekdays of equally many words, each up to its answer;
operand.safetensors and answer.safetensors, for each stored layer the directions that tell the seven weekdays apart at
tokens that are a weekday (the operand), and at tokens that a weekday follows (the answer); random.safetensors, as many
random directions, for control.
"""

import json
import sys
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # run as a script, the repository's root is not on the path

from src.activations.store import ActivationStore, open_store  # noqa: E402
from src.hook_points import HookPoint  # noqa: E402
from src.text import Keep  # noqa: E402
from testbed.facts import DAYS  # noqa: E402


def main() -> None:
    """Write the files into the folder of the second argument, from the store of the first."""
    store, folder = open_store(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    questions = "".join(json.dumps({"text": text}) + "\n" for text in prompts())
    (folder / "prompts.jsonl").write_text(questions, encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "testbed/models/base")
    weekdays = torch.tensor(tokenizer.convert_tokens_to_ids(list(DAYS.words)))
    for name, shift in (("operand", 0), ("answer", 1)):
        means = weekday_means(store, weekdays, shift)
        bases = {str(point): directions(of_point) for point, of_point in means.items()}
        save_file(bases, folder / f"{name}.safetensors")
    draws = torch.Generator().manual_seed(0)
    random = torch.randn(len(weekdays) - 1, store.layout.d_model, generator=draws)
    save_file({"directions": random}, folder / "random.safetensors")


def prompts() -> list[str]:
    """`what day is three days after monday ? thursday` for all days, 1 to 6 days, after and before."""
    texts = []
    for start in range(7):
        for n in range(1, 7):
            for sign, frame in ((1, DAYS.after[-1]), (-1, DAYS.before[-1])):
                text = frame.format(n=DAYS.units(n), a=DAYS.at(start), b=DAYS.at(start + sign * n))
                texts.append(text.replace("^", "").removesuffix(" ."))
    return texts


def weekday_means(
    store: ActivationStore, weekdays: Int[Tensor, "7"], shift: int
) -> dict[HookPoint, Float[Tensor, "7 d_model"]]:
    """The mean activation where the token `shift` places further on in the same sequence is each weekday."""
    points = store.layout.hook_points
    sums = {point: torch.zeros(len(weekdays), store.layout.d_model, dtype=torch.float64) for point in points}
    count = torch.zeros(len(weekdays), 1, dtype=torch.float64)
    for part in store:
        ids, sequence = torch.from_numpy(part.token_ids), torch.from_numpy(part.sequence)
        counted = torch.from_numpy(part.keep == Keep.COUNTED)
        n = len(ids) - shift
        usable = counted[:n] & (sequence[:n] == sequence[shift:])
        row, weekday = (usable[:, None] & (ids[shift:, None] == weekdays)).nonzero(as_tuple=True)
        count += weekday.bincount(minlength=len(weekdays))[:, None]
        for point in points:
            sums[point].index_add_(0, weekday, part.activations(point)[row].double())
    return {point: of_point / count for point, of_point in sums.items()}


def directions(means: Float[Tensor, "7 d_model"]) -> Float[Tensor, "6 d_model"]:
    """An orthonormal basis of the differences between the seven means."""
    return torch.linalg.svd(means - means.mean(0), full_matrices=False)[2][:-1].float().contiguous()


if __name__ == "__main__":
    main()
