"""How hard each form of the local penalty pulls: the norm of its weighted gradient over that of the loss.

The forms are ours (the own step of the solver, the error ratio alone, our weight) and those of the papers (one initial
step, times its size, the published weight): released holds the first stage constant, text differentiates it. The model
of seed 0 is looked at before training and after some steps of vanilla training with the optimizer of its budget, on one
batch each time. The norm of the gradient of a penalty is the root mean square over draws of the biased one; that of the
loss counts the parameters that the penalty reaches: those of the dynamics, and of an encoder that it is injected into.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from _timing import OUT, table
from bench_weight import KEPT, write
from torch import Tensor, nn

from reproduce import experiments
from reproduce.experiments import Budget, Problem
from reproduce.runs import provenance, train
from reproduce.runs.evaluation import generator, solver
from reproduce.runs.run import Run

FORMS = {"ours": "local_biased", "released": "local_biased:released", "text": "local_biased:text"}


def batch_of(problem: Problem, budget: Budget, step: int) -> Any:
    """Return the batch of a training step: drawn by its number."""
    order = torch.randperm(problem.n_train, generator=generator(step, "batch of a step"))
    return problem.train_batch(order[: budget.batch])


def norm(grads: Sequence[Tensor | None], reached: Sequence[bool]) -> float:
    """Return the norm of gradients over the parameters that are reached."""
    found = (grad for grad, used in zip(grads, reached, strict=True) if used and grad is not None)
    return float(sum(float(grad.double().square().sum()) for grad in found)) ** 0.5


def pulls(model: nn.Module, problem: Problem, budget: Budget, of: str, profile: str, step: int, draws: int) -> Any:
    """Return for each form the weight at a step, and the norm of its weighted gradient over that of the loss."""
    batch, parameters = batch_of(problem, budget, step), list(model.parameters())
    solve = solver(budget, noise=generator(0, "paths"), training=True)
    output, solution = model(problem.inputs(batch), solve, generator(0, "noise"))
    loss = problem.loss(output, batch, step)
    of_loss = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    found = {}
    for form, name in FORMS.items():
        regularizer, rng = Run(of, name, 0, profile).make_regularizer(), generator(0, "sampled time")
        assert regularizer is not None
        assert regularizer.penalty is not None
        weight, squares = regularizer.weight(step / budget.steps), []
        for _ in range(draws):
            penalty = regularizer.penalty(solution, rng)
            grads = torch.autograd.grad(penalty, parameters, retain_graph=True, allow_unused=True)
            reached = [grad is not None for grad in grads]
            squares.append(norm(grads, reached) ** 2)
        mean = (sum(squares) / draws) ** 0.5
        found[form] = {"weight": weight, "over_loss": weight * mean / norm(of_loss, reached)}
    return found


def training(model: nn.Module, problem: Problem, budget: Budget) -> Iterator[None]:
    """Train a model in place without a penalty, from the first step of its budget on: a step for each `next`."""
    optimizer = getattr(torch.optim, budget.optimizer)(model.parameters(), lr=budget.lr)
    solve, noise = solver(budget, noise=generator(0, "paths"), training=True), generator(0, "noise")
    for step in range(budget.steps):
        batch = batch_of(problem, budget, step)
        output, _ = model(problem.inputs(batch), solve, noise)
        for group in optimizer.param_groups:
            group["lr"] = train.learning_rate(budget, step)
        optimizer.zero_grad(set_to_none=True)
        problem.loss(output, batch, step).backward()
        optimizer.step()
        yield


def looked_at(of: str, profile: str, steps: int, draws: int) -> dict[str, Any]:
    """Return the row of an experiment and profile: each form before training, and after so many steps of it."""
    budget = experiments.get(of).budget(profile)
    problem = experiments.get(of).problem(budget, "validation")
    torch.manual_seed(generator(0, "initialization").initial_seed())
    model = problem.model().train()
    start = pulls(model, problem, budget, of, profile, 0, draws)
    deque(islice(training(model, problem, budget), steps), maxlen=0)
    after = pulls(model, problem, budget, of, profile, steps, draws)
    row = {"experiment": of, "profile": profile, "tolerance": budget.rtol, "steps": steps, "draws": draws}
    return row | {"data": problem.data, "start": start, "after": after}


def lines(rows: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    for row in rows:
        for form in FORMS:
            start, after = row["start"][form], row["after"][form]
            numbers = (f"{value:.2g}" for value in (start["weight"], start["over_loss"], after["over_loss"]))
            yield [row["experiment"], row["profile"], f"{row['tolerance']:g}", form, *numbers]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="write the rows to data/reference/measured")
    parser.add_argument("--profiles", default="quick", help="with commas between; paper takes long")
    parser.add_argument("--without", default="", help="left out, as experiment/profile, with commas between")
    parser.add_argument("--only", default=",".join(experiments.names()), help="experiments, with commas between")
    parser.add_argument("--steps", type=int, default=100, help="of vanilla training before the second look")
    parser.add_argument("--draws", type=int, default=16)
    asked, start, rows = parser.parse_args(), time.perf_counter(), list[dict[str, Any]]()
    torch.set_num_threads(1)
    made_from = provenance.commit()  # before this run writes a file
    path = (KEPT.parent if asked.keep else OUT) / "papers_forms.json"
    pairs = [(name, profile) for profile in asked.profiles.split(",") for name in asked.only.split(",")]
    for name, profile in (pair for pair in pairs if "/".join(pair) not in asked.without.split(",")):
        rows.append(looked_at(name, profile, asked.steps, asked.draws))
        seconds = time.perf_counter() - start
        write(rows, path, made_from, range(1), seconds, drawn="; ".join(sorted({row["data"] for row in rows})))
        print(f"{name}, {profile}: {seconds:.0f} s", flush=True)
    head = "experiment, profile, tolerance, form, weight, over the loss at the start, and after training"
    text = table(head.split(", "), list(lines(rows)))
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "papers_forms.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
