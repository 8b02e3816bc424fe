"""The language model: rotary decoder blocks with dynamic NTK and log-n attention.

Shape letters: R rows, S positions of this call, T positions with the cache, D width, H heads,
C channels of a head. A slot is the 0-based place in the padded row; rotary angles and log-n go by
slots, so padding on the left counts.
Source: Qwen, https://arxiv.org/abs/2309.16609; parameter names as published.
"""

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eval.runtime.config import QwenVLConfig

MAX_SLOTS = 32767  # the original's log-n table ends here


def rotary_base(config: QwenVLConfig, length: int) -> float:
    """Base of the rotary angles after a prefill of `length` padded slots (dynamic NTK).

    Up to seq_length it is the config's own; each doubling beyond raises it for every slot.
    """
    alpha = 1.0
    if config.use_dynamic_ntk:
        doublings = math.ceil(math.log2(length / config.seq_length) + 1)
        alpha = max(2.0**doublings - 1, 1.0)
    channels = config.kv_channels
    return float(config.rotary_emb_base * alpha ** (channels / (channels - 2)))


def rotary_tables(slots: Tensor, base: float | Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (..., S, C), float32, of slots (..., S) int64; channels i, i + C/2 pair.

    base  one for all, or float32 of the slots' shape
    """
    exponent = torch.arange(0, channels, 2, device=slots.device).float() / channels
    wide = base[..., None] if isinstance(base, Tensor) else base
    angles = slots.float()[..., None] * (1.0 / (wide**exponent))
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn (R, H, S, C) by tables (R or 1, S, C); computed in float32, returned in x's dtype."""
    wide = x.float()
    low, high = wide.chunk(2, dim=-1)
    turned = torch.cat([-high, low], dim=-1)
    return (wide * cos[:, None] + turned * sin[:, None]).to(x.dtype)


def logn_scale(slots: Tensor, seq_length: int) -> Tensor:
    """Factor of each query, float32, shape of slots: log(slot + 1) / log(seq_length), >= 1."""
    scale = torch.log(slots.double() + 1) / math.log(seq_length)
    return scale.clamp_min(1.0).float()


def additive_mask(key_mask: Tensor, queries: int, dtype: torch.dtype) -> Tensor | None:
    """Causal and padding mask (R, 1, S, T) of key_mask (R, T), 1 = real; None where none is needed.

    Queries are the last S slots. A padded query sees itself, so that no softmax row is empty.
    """
    total = key_mask.shape[1]
    if queries == 1 and bool(key_mask.all()):
        return None
    slots = torch.arange(total, device=key_mask.device)
    mine = slots[total - queries :]
    allowed = (slots[None, :] <= mine[:, None])[None] & key_mask.bool()[:, None, :]
    allowed = allowed | (slots[None, :] == mine[:, None])[None]
    mask = torch.zeros(allowed.shape, dtype=dtype, device=key_mask.device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]


class Memory(Protocol):
    """Keeps keys and values, and says which of them a query reads."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, at: "Places") -> Tensor:
        """Take this call's q, k, v (R, H, S, C), rotated already, and give (R, H, S, C)."""
        ...


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Queries (R, H, S, C) read keys and values (R, H, T, C) -> (R, H, S, C).

    mask  (R or 1, 1, S, T) additive, or None: causal where S = T, everything where S = 1
    """
    causal = mask is None and q.shape[2] == k.shape[2] and q.shape[2] > 1
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


@dataclass(slots=True)
class Cache:
    """Keys (after rotary) and values of each layer, (R, H, T, C), and the rotary base."""

    base: float
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Slots that are filled."""
        return self.keys[0].shape[2] if self.keys else 0

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, at: "Places") -> Tensor:
        """Append keys and values (R, H, S, C), then let the queries read all of the layer's."""
        if layer == len(self.keys):
            self.keys.append(k)
            self.values.append(v)
        else:
            self.keys[layer] = torch.cat([self.keys[layer], k], dim=2)
            self.values[layer] = torch.cat([self.values[layer], v], dim=2)
        return attention(q, self.keys[layer], self.values[layer], at.mask)


@dataclass(frozen=True, slots=True)
class Places:
    """What attention must know about where its queries stand.

    cos, sin  (R or 1, S, C) float32
    scale     (R or 1, S) float32 log-n factor, or None
    mask      (R or 1, 1, S, T) additive, or None: causal where S = T, everything where S = 1
    """

    cos: Tensor
    sin: Tensor
    scale: Tensor | None
    mask: Tensor | None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Places":
        """The same on a device: accelerate's hooks ask for it where a block lies on another one."""
        tensors = (self.cos, self.sin, self.scale, self.mask)
        moved = [t if t is None else t.to(device, non_blocking=non_blocking) for t in tensors]
        return Places(*moved)  # type: ignore[arg-type]  # cos and sin are never None


def token_places(
    config: QwenVLConfig, slots: Tensor, base: float | Tensor, mask: Tensor | None = None
) -> Places:
    """Tables for queries at `slots` (R or 1, S) int64; see `rotary_tables` for the base."""
    cos, sin = rotary_tables(slots, base, config.kv_channels)
    scale = logn_scale(slots, config.seq_length) if config.use_logn_attn else None
    return Places(cos, sin, scale, mask)


class RMSNorm(nn.Module):
    """x / rms(x), in float32, cast back, then times a weight."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return wide.to(x.dtype) * self.weight


class Attention(nn.Module):
    """Causal self-attention: biased query, key, value; output without bias."""

    def __init__(self, config: QwenVLConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        inner = config.kv_channels * self.heads
        self.c_attn = nn.Linear(config.hidden_size, 3 * inner)
        self.c_proj = nn.Linear(inner, config.hidden_size, bias=False)

    def forward(
        self,
        x: Tensor,
        at: Places,
        memory: Memory | None,
        layer: int,
        kept: Tensor | None = None,
    ) -> Tensor:
        """(R, S, D) -> (R, S, D), or of the kept places alone, (R, K, D)."""
        rows, queries, _ = x.shape
        q, k, v = self.c_attn(x).view(rows, queries, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, at.cos, at.sin), rotate(k, at.cos, at.sin)
        if at.scale is not None:
            q = q * at.scale[:, None, :, None].to(q.dtype)
        y = memory.attend(layer, q, k, v, at) if memory is not None else attention(q, k, v, at.mask)
        y = y.transpose(1, 2).flatten(2)
        return self.c_proj(y if kept is None else y[:, kept])  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Gated unit, the gate on `w2`: c_proj(w1(x) * silu(w2(x)))."""

    def __init__(self, config: QwenVLConfig) -> None:
        super().__init__()
        inner = config.intermediate_size // 2
        self.w1 = nn.Linear(config.hidden_size, inner, bias=False)
        self.w2 = nn.Linear(config.hidden_size, inner, bias=False)
        self.c_proj = nn.Linear(inner, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(R, S, D) -> (R, S, D)."""
        return self.c_proj(self.w1(x) * F.silu(self.w2(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm attention and MLP, each added to its input."""

    def __init__(self, config: QwenVLConfig) -> None:
        super().__init__()
        self.ln_1 = RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.ln_2 = RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        at: Places,
        memory: Memory | None,
        layer: int,
        kept: Tensor | None = None,
    ) -> Tensor:
        """(R, S, D) -> (R, S, D), or of the kept places alone, (R, K, D)."""
        y = self.attn(self.ln_1(x), at, memory, layer, kept)
        x = (x if kept is None else x[:, kept]) + y
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]
