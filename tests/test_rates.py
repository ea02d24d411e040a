"""Rates: derivatives by two arithmetics and by hand, Hutchinson's estimate, what they call and what they refuse."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import Counting
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import linear

from regnde import Field
from regnde.penalties.jets import RULES, Jet
from regnde.penalties.rates import draw_noise, kinetic_jacobian_rate, taylor_rate, total_derivative
from reproduce.models.fields import CubicMLP

per_mode = pytest.mark.parametrize("mode", ["taylor", "nested"])
per_order = pytest.mark.parametrize("order", [2, 3, 4])
A, B, Y = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).split([3, 1, 4])
B = B[0]
T = torch.tensor(0.7, dtype=torch.float64)
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def noise(y: Tensor) -> Tensor:
    return draw_noise(y, torch.Generator().manual_seed(1))


def derivative(f: Field, order: int, mode: str = "taylor", y: Tensor = Y) -> Tensor:
    return total_derivative(f, T, y, f(T, y), order=order, mode=mode)


@per_mode
@per_order
def test_the_derivative_of_a_linear_field_is_a_power_of_its_matrix(order: int, mode: str) -> None:
    found = derivative(lambda t, y: y @ A.T, order, mode)
    torch.testing.assert_close(found, Y @ torch.linalg.matrix_power(A, order).T, **EXACT)


@per_mode
@per_order
def test_the_time_in_a_linear_field_counts_as_the_formula_says(order: int, mode: str) -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return y @ A.T + B * t + 0.5 * t**2

    dy = f(T, Y)
    by_hand = {2: dy @ A.T + B + T}
    by_hand[3] = by_hand[2] @ A.T + 1.0
    by_hand[4] = by_hand[3] @ A.T
    torch.testing.assert_close(derivative(f, order, mode), by_hand[order], **EXACT)


@per_mode
@per_order
def test_the_derivative_of_a_square_is_a_factorial_times_a_power(order: int, mode: str) -> None:
    torch.testing.assert_close(
        derivative(lambda t, y: y**2, order, mode), math.factorial(order) * Y ** (order + 1), **EXACT
    )


@per_mode
@per_order
def test_the_derivative_of_time_times_state_is_a_polynomial_in_time(order: int, mode: str) -> None:
    t = float(T)
    factor = {2: 1 + t**2, 3: 3 * t + t**3, 4: 3 + 6 * t**2 + t**4}[order]
    torch.testing.assert_close(derivative(lambda t, y: t * y, order, mode), factor * Y, **EXACT)


@per_mode
@per_order
def test_the_derivative_of_the_cubic_spiral_follows_the_product_rule(order: int, mode: str) -> None:
    matrix, y = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=torch.float64), Y[:, :2]
    y1 = y**3 @ matrix
    y2 = 3 * y**2 * y1 @ matrix
    y3 = (6 * y * y1**2 + 3 * y**2 * y2) @ matrix
    y4 = (6 * y1**3 + 18 * y * y1 * y2 + 3 * y**2 * y3) @ matrix
    found = derivative(lambda t, y: y**3 @ matrix, order, mode, y)
    torch.testing.assert_close(found, {2: y2, 3: y3, 4: y4}[order], **EXACT)


@per_mode
def test_a_field_that_is_constant_or_only_time_has_the_derivatives_of_that_function(mode: str) -> None:
    ones = torch.ones_like(Y)
    assert torch.equal(derivative(lambda t, y: ones, 2, mode), torch.zeros_like(Y))
    torch.testing.assert_close(derivative(lambda t, y: ones * torch.sin(t), 3, mode), -torch.sin(T) * ones, **EXACT)


def mixed(t: Tensor, y: Tensor) -> Tensor:
    """All entries positive, and no derivative zero."""
    return 1.5 + 0.4 * torch.tanh(y @ A) * (1 + t)


def pieces(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.cat([b, a * c, c], dim=-1)


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "abs": lambda t, x: (x - 1.5).abs() + abs(x),
    "add": lambda t, x: torch.add(t, x, alpha=2) + 1 + (2.0 + x) + (B + t),
    "addcmul": lambda t, x: torch.addcmul(B, x, t, value=0.5) + torch.addcmul(x, B, B),
    "bmm": lambda t, x: torch.bmm(x[:, None], torch.stack([x, (B * t).expand(4, 3), x * x], dim=1))[:, 0],
    "cat": lambda t, x: torch.cat([x[:, :1], Y[:, :1], (t * x)[:, 2:]], 1),
    "chunk": lambda t, x: pieces(*x.chunk(3, dim=-1)),
    "clone": lambda t, x: x.clone(),
    "contiguous": lambda t, x: x.mul(x).contiguous(),
    "cos": lambda t, x: torch.cos(x * t),
    "dim": lambda t, x: x * x.dim(),
    "div": lambda t, x: torch.div(t, x) + x / 3,
    "double": lambda t, x: (x * x).double(),
    "eq": lambda t, x: torch.where(x == 0.0, B, x),
    "exp": lambda t, x: torch.exp(x * t),
    "expand": lambda t, x: t.expand(4, 1) * x + x[:1].expand(4, -1),
    "flatten": lambda t, x: x.flatten().reshape(4, 3),
    "float": lambda t, x: x.double() + 0 * x.float(),
    "ge": lambda t, x: torch.where(x >= 1.5, x * x, x),
    "gelu": lambda t, x: functional.gelu(x - 1.5) + nn.GELU()(x),
    "getitem": lambda t, x: x[:, [2, 0, 1]] * x[..., :1] + x[0],
    "gt": lambda t, x: (x > 1.5) * x,
    "is_floating_point": lambda t, x: x * x if x.is_floating_point() else x,
    "le": lambda t, x: (x <= 1.5) * x,
    "linear": lambda t, x: linear(x, A, B * t) + linear(x, A * t) + linear(x, A, B) + linear(Y, A * t, B * t**3) * x,
    "log": lambda t, x: torch.log(x),
    "lt": lambda t, x: (x < 1.5) * x,
    "matmul": lambda t, x: x @ (x.transpose(0, 1) @ x) + Y @ (A * t),
    "mean": lambda t, x: x - x.mean(dim=1, keepdim=True) ** 2,
    "mm": lambda t, x: torch.mm(x, A),
    "movedim": lambda t, x: x.movedim(0, 1).movedim(0, 1) * x,
    "mul": lambda t, x: torch.mul(x, t) * 2 * x * np.float64(0.5) + np.float64(0.5) * x,
    "mv": lambda t, x: torch.mv(x, B)[:, None] * x,
    "ne": lambda t, x: (x != 0.0) * x,
    "neg": lambda t, x: -x * t + torch.neg(x),
    "new_full": lambda t, x: x.new_full((3,), 2.0) * x,
    "new_ones": lambda t, x: x.new_ones(3) * x,
    "new_tensor": lambda t, x: x.new_tensor([1.0, 2.0, 3.0]) * x,
    "new_zeros": lambda t, x: x.new_zeros(3) + x,
    "numel": lambda t, x: x * x.numel(),
    "ones_like": lambda t, x: torch.cat([x[:, :2], torch.ones_like(x[:, :1]) * t], dim=1),
    "permute": lambda t, x: x.permute(1, 0).permute(1, 0) * x,
    "pow": lambda t, x: x**3 + x**4 + torch.pow(x, 0.3) + x**-2 + x**0 + x**1 + t**5,
    "reciprocal": lambda t, x: torch.reciprocal(x),
    "relu": lambda t, x: torch.relu(x - 1.5) * x + nn.ReLU(inplace=True)(1.5 - x),
    "reshape": lambda t, x: x.reshape(-1, 1).reshape(4, 3) * x,
    "sigmoid": lambda t, x: torch.sigmoid(x) + functional.sigmoid(x * t),
    "sign": lambda t, x: torch.sign(x - 1.5) * x,
    "silu": lambda t, x: functional.silu(x),
    "sin": lambda t, x: torch.sin(x * t) * torch.cos(x),
    "size": lambda t, x: x * x.size(0) * x.shape[1] * x.ndim,
    "softplus": lambda t, x: functional.softplus(x - 1.5) + nn.Softplus(beta=2)(x),
    "split": lambda t, x: pieces(*x.split(1, dim=-1)),
    "sqrt": lambda t, x: torch.sqrt(x),
    "square": lambda t, x: torch.square(x),
    "squeeze": lambda t, x: x.unsqueeze(0).squeeze(0) * x,
    "stack": lambda t, x: torch.stack([x[:, 0], Y[:, 0], t * x[:, 1]], -1),
    "sub": lambda t, x: torch.sub(x, t, alpha=2) - (1 - x * t) - (Y - x * x),
    "sum": lambda t, x: (x * x).sum(-1, keepdim=True) * x.sum(),
    "t": lambda t, x: x.t().t() * x,
    "tanh": lambda t, x: torch.tanh(x * t) + x.tanh(),
    "to": lambda t, x: (x * x).to(Y),
    "transpose": lambda t, x: x.transpose(0, 1).transpose(0, 1) * x,
    "truediv": lambda t, x: x / (t + x) + 1 / x + Y / x,
    "unbind": lambda t, x: torch.stack([a * b for a, b in zip(x.unbind(-1), (x * t).unbind(-1), strict=True)], -1),
    "unflatten": lambda t, x: x.flatten().unflatten(0, (4, 3)) * x,
    "unsqueeze": lambda t, x: (x.unsqueeze(-1) * A).sum(-2),
    "view": lambda t, x: x.view(3, 4).view(4, 3) * (Y + B * t).view(3, 4).view(4, 3),
    "where": lambda t, x: torch.where(Y > 0, x * t, Y),
    "zeros_like": lambda t, x: torch.zeros_like(x) + x,
}


def test_every_rule_of_taylor_mode_is_tested() -> None:
    assert set(OPERATIONS) == set(RULES)


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@per_order
def test_every_rule_agrees_with_nested_forward_mode(operation: str, order: int) -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return OPERATIONS[operation](t, mixed(t, y)) * torch.ones_like(y)

    by_nested = derivative(f, order, "nested")
    assert by_nested.abs().max() > 1e-3
    tolerance = 1e-5 if operation == "float" else 1e-10
    torch.testing.assert_close(derivative(f, order), by_nested, rtol=tolerance, atol=tolerance)


@per_order
def test_both_modes_agree_on_an_mlp_with_time_and_on_one_with_cubes(order: int, mlp: Counting) -> None:
    for f, y in ((mlp, Y), (CubicMLP(8).double(), Y[:, :2])):
        torch.testing.assert_close(derivative(f, order, "taylor", y), derivative(f, order, "nested", y), **EXACT)


@per_mode
@per_order
def test_gradient_of_a_taylor_rate_with_respect_to_parameters_and_state(order: int, mode: str) -> None:
    rate = taylor_rate(order, mode=mode)
    biased = torch.cat([A, B[:, None]], dim=1) / 2

    def of(weight: Tensor, y: Tensor) -> Tensor:
        def f(t: Tensor, y: Tensor) -> Tensor:
            inside = torch.tanh(linear(y**3, weight[:, :-1], weight[:, -1] * t))
            return linear(inside, weight[:, :-1])

        return rate(f, T, y, f(T, y))

    assert torch.autograd.gradcheck(of, (biased.requires_grad_(), Y[:2].clone().requires_grad_()))


@per_mode
def test_a_taylor_rate_is_the_mean_over_the_batch_of_the_squared_norm_over_the_dimension(mode: str) -> None:
    f = nn.Linear(3, 3).double()
    dy = f(Y)
    found = taylor_rate(2, mode=mode)(lambda t, y: f(y), T, Y, dy)
    torch.testing.assert_close(found, (dy @ f.weight.T).square().sum(dim=1).mean() / 3, **EXACT)


@per_order
def test_taylor_mode_calls_the_field_once_and_takes_the_known_derivative_as_it_is(order: int, mlp: Counting) -> None:
    taylor_rate(order)(mlp, T, Y, torch.zeros_like(Y))
    assert mlp.calls == 1
    known = noise(Y)
    found = total_derivative(lambda t, y: y @ A.T, T, Y, known, order=order)
    torch.testing.assert_close(found, known @ torch.linalg.matrix_power(A, order - 1).T, **EXACT)


def test_a_rate_without_graph_is_the_same_number(mlp: Counting) -> None:
    dy = mlp(T, Y)
    for rate in (*map(taylor_rate, (2, 3, 4)), kinetic_jacobian_rate(noise(Y))):
        with_graph = rate(mlp, T, Y.clone().requires_grad_(), dy)
        with torch.no_grad():
            without = rate(mlp, T, Y, dy)
        assert with_graph.requires_grad
        assert not without.requires_grad
        torch.testing.assert_close(without, with_graph.detach(), rtol=1e-13, atol=0)


def test_taylor_mode_frees_everything_when_it_is_done() -> None:
    gc.collect()
    gc.disable()
    try:
        for operation in OPERATIONS.values():
            derivative(lambda t, y, operation=operation: operation(t, mixed(t, y)) * torch.ones_like(y), 4)
        assert not [x for x in gc.get_objects() if type(x) is Jet]
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("name", "f"),
    [
        ("layer_norm", lambda t, y: functional.layer_norm(y, (3,))),
        ("detach", lambda t, y: y.detach() * t),
        ("item", lambda t, y: y * t.item()),
        ("float", lambda t, y: y * math.sin(t)),
        ("bool", lambda t, y: y if t else -y),
        ("requires_grad", lambda t, y: y if y.requires_grad else -y),
        ("pow' with these arguments", lambda t, y: torch.pow(y, t)),
        ("where' with these arguments", lambda t, y: torch.where(t, y, -y)),
        ("mean' with these arguments", lambda t, y: y - y.mean(t)),
        ("gelu' with these arguments", lambda t, y: functional.gelu(y, approximate="tanh")),
    ],
)
def test_taylor_mode_refuses_an_operation_without_a_rule_by_its_name(name: str, f: Field) -> None:
    with pytest.raises(ValueError, match=f"no rule for '{name}.*mode='nested'"):
        total_derivative(f, T, Y, Y, order=2)


def test_a_field_that_is_too_deep_is_refused_with_a_way_out() -> None:
    layers = nn.Sequential(*[m for _ in range(200) for m in (nn.Linear(3, 3), nn.Tanh())]).double()
    with pytest.raises(ValueError, match=r"too deep for Taylor mode.*mode='nested'"):
        total_derivative(lambda t, y: layers(y), T, Y, Y, order=4)


def test_nested_mode_takes_an_operation_that_taylor_mode_does_not_know() -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return functional.layer_norm(y, (3,))

    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda x: f(T, x), y) for y in Y])  # type: ignore[arg-type]
    by_hand = torch.einsum("bij,bj->bi", jacobian, f(T, Y))
    torch.testing.assert_close(derivative(f, 2, "nested"), by_hand, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("order", [1, 5, 0, -2, 2.0, 2.5, "2"])
def test_an_order_outside_2_to_4_is_refused(order: int) -> None:
    with pytest.raises(ValueError, match=r"order must be one of \(2, 3, 4\)"):
        taylor_rate(order)


def test_wrong_shapes_modes_and_weights_are_refused_before_any_work(mlp: Counting) -> None:
    eps = noise(Y)
    for rate in (taylor_rate(2), taylor_rate(3, mode="nested"), kinetic_jacobian_rate(eps)):
        with pytest.raises(ValueError, match=r"dy must be f\(t, y\).*\(4, 3\).*\(3,\)"):
            rate(mlp, T, Y, Y[0])
        with pytest.raises(ValueError, match="t must be a 0-d tensor"):
            rate(mlp, T[None], Y, Y)
    with pytest.raises(ValueError, match=r"eps must have the shape.*\(4, 3\).*\(3,\)"):
        kinetic_jacobian_rate(eps[0])(mlp, T, Y, Y)
    assert mlp.calls == 0
    with pytest.raises(ValueError, match="unknown mode 'fast'"):
        taylor_rate(2, mode="fast")
    with pytest.raises(ValueError, match="jacobian must be a weight"):
        kinetic_jacobian_rate(eps, jacobian=-1.0)


def test_kinetic_jacobian_is_on_average_its_closed_form_on_a_linear_field() -> None:
    n = 20_000
    y = Y[:1].expand(n, 3)
    dy = y @ A.T
    rate = kinetic_jacobian_rate(noise(y), kinetic=0.7, jacobian=0.3)
    found = rate(lambda t, y: y @ A.T, T, y, dy)
    closed_form = (0.7 * (Y[0] @ A.T).square().sum() + 0.3 * A.square().sum()) / 3
    standard_error = 0.3 * math.sqrt(2 * (A @ A.T).square().sum().item() / n) / 3  # Var |eps^T A|^2 = 2 |A A^T|_F^2
    assert abs(found - closed_form) < 3 * standard_error


def test_the_jacobian_term_is_the_square_of_noise_times_jacobian(mlp: Counting) -> None:
    eps, y = noise(Y), Y.clone().requires_grad_()
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda x: mlp(T, x), y) for y in Y])  # type: ignore[arg-type]
    by_hand = torch.einsum("bi,bij->bj", eps, jacobian).square().sum(dim=1).mean() / 3
    found = kinetic_jacobian_rate(eps, kinetic=0.0)(mlp, T, y, mlp(T, y))
    torch.testing.assert_close(found.detach(), by_hand, **EXACT)


def test_kinetic_jacobian_calls_the_field_only_where_there_is_no_graph_to_use(mlp: Counting) -> None:
    y, eps = Y.clone().requires_grad_(), noise(Y)
    both, kinetic = kinetic_jacobian_rate(eps), kinetic_jacobian_rate(eps, jacobian=0.0)
    dy = mlp(T, y)
    mlp.calls = 0
    torch.testing.assert_close(kinetic(mlp, T, y, dy), dy.square().mean())
    with_graph = both(mlp, T, y, dy)
    assert mlp.calls == 0
    for other in (Y, Y.clone().requires_grad_()):  # the same state, but not the tensor that dy was computed from
        mlp.calls = 0
        torch.testing.assert_close(both(mlp, T, other, dy), with_graph)
        assert mlp.calls == 1
    with torch.no_grad():
        both(mlp, T, y, dy)
    assert mlp.calls == 2


def test_gradient_of_kinetic_jacobian_with_respect_to_parameters_and_state() -> None:
    rate = kinetic_jacobian_rate(noise(Y))

    def of(weight: Tensor, y: Tensor) -> Tensor:
        def f(t: Tensor, y: Tensor) -> Tensor:
            return torch.tanh(y**3 @ weight) * t

        return rate(f, T, y, f(T, y))

    assert torch.autograd.gradcheck(of, (A.clone().requires_grad_(), Y.clone().requires_grad_()))
    assert torch.autograd.gradcheck(lambda weight: of(weight, Y), A.clone().requires_grad_())


@pytest.mark.parametrize("f", [lambda t, y: torch.ones_like(y) * t, lambda t, y: B.clone().requires_grad_() + 0 * Y])
def test_the_jacobian_of_a_field_that_does_not_look_at_the_state_is_zero(f: Field) -> None:
    y = Y.clone().requires_grad_()
    assert kinetic_jacobian_rate(noise(Y), kinetic=0.0)(f, T, y, f(T, y)) == 0.0


def test_noise_follows_its_generator() -> None:
    first, again, other = (draw_noise(Y.float(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first.shape, first.dtype) == (Y.shape, torch.float32)
