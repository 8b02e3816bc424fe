"""The vision tower: a ViT over patches, then a resampler that leaves 256 tokens of an image.

Shape letters: N images, P patches, W width of the tower, D output width, H heads.
Source: Qwen-VL, https://arxiv.org/abs/2308.12966, section 2; parameter names as published.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

QUERIES = 256  # tokens that stand for one image, whatever its resolution
GRID = 16  # both position tables are stored for a 16 x 16 grid
EPSILON = 1e-6


def resize_positions(table: Tensor, grid: int) -> Tensor:
    """Bicubically resize a position table (256, W), row-major 16 x 16, to (grid * grid, W).

    Interpolated in float32 and returned in the table's dtype; 16 x 16 is returned as it is.
    """
    if grid == GRID:
        return table
    square = table.float().reshape(1, GRID, GRID, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1).reshape(grid * grid, -1).to(table.dtype)


def sincos_positions(width: int) -> Tensor:
    """The resampler's initial position table (256, width), float32.

    Row y * 16 + x is [sin(x w), cos(x w), sin(y w), cos(y w)] with w_j = 10000^(-j / (width / 4)):
    the column comes first.
    """
    quarter = width // 4
    frequency = 10000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    place = torch.arange(GRID, dtype=torch.float64)
    angles = place[:, None] * frequency[None]
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (16, width / 2)
    column = waves[None, :, :].expand(GRID, GRID, -1)
    row = waves[:, None, :].expand(GRID, GRID, -1)
    return torch.cat([column, row], dim=2).reshape(QUERIES, width).float()


class VisionAttention(nn.Module):
    """Full self-attention; `in_proj` lays out query, key and value next to each other per head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, P, W) -> (N, P, W)."""
        n, p, width = x.shape
        per_head = self.in_proj(x).view(n, p, self.heads, 3, width // self.heads)
        q, k, v = per_head.permute(3, 0, 2, 1, 4)  # each (N, H, P, W / H)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(y.transpose(1, 2).reshape(n, p, width))  # type: ignore[no-any-return]


class VisionMLP(nn.Module):
    """Two layers with the exact (erf) GELU between."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, inner)
        self.c_proj = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, P, W) -> (N, P, W)."""
        return self.c_proj(F.gelu(self.c_fc(x)))  # type: ignore[no-any-return]


class VisionBlock(nn.Module):
    """Pre-norm attention and MLP, each added to its input."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=EPSILON)
        self.ln_2 = nn.LayerNorm(width, eps=EPSILON)
        self.attn = VisionAttention(width, heads)
        self.mlp = VisionMLP(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        """(N, P, W) -> (N, P, W)."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class VisionEncoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, width: int, layers: int, heads: int, inner: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(VisionBlock(width, heads, inner) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """(N, P, W) -> (N, P, W)."""
        for block in self.resblocks:
            x = block(x)
        return x


class CrossAttention(nn.Module):
    """Multi-head attention of given queries, keys and values; weights laid out [q | k | v]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Query (Q, D), key and value (N, P, D) -> (N, Q, D)."""
        n, _, width = key.shape
        weights = self.in_proj_weight.chunk(3)
        biases = self.in_proj_bias.chunk(3)

        def heads(x: Tensor, part: int) -> Tensor:
            x = F.linear(x, weights[part], biases[part])
            x = x.unflatten(-1, (self.heads, width // self.heads))
            return x.transpose(-3, -2)

        q = heads(query, 0).expand(n, -1, -1, -1)
        y = F.scaled_dot_product_attention(q, heads(key, 1), heads(value, 2))
        return self.out_proj(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Resampler(nn.Module):
    """256 learned queries read the patches by cross-attention; positions enter keys, not values."""

    def __init__(self, width: int, output: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.pos_embed = nn.Parameter(torch.empty(QUERIES, output))
        self.query = nn.Parameter(torch.empty(QUERIES, output))
        if width != output:
            self.kv_proj: nn.Module = nn.Linear(width, output, bias=False)
        else:
            self.kv_proj = nn.Identity()
        self.attn = CrossAttention(output, output // 128)
        self.ln_q = nn.LayerNorm(output, eps=EPSILON)
        self.ln_kv = nn.LayerNorm(output, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """(N, P, W) -> (N, 256, D)."""
        value = self.ln_kv(self.kv_proj(x))
        query = self.ln_q(self.query) + self.pos_embed
        key = value + resize_positions(self.pos_embed, self.grid)
        return self.attn(query, key, value)  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """Pixels (N, 3, S, S), normalised -> features (N, 256, D), S and D from the config."""

    def __init__(self, sizes: dict[str, Any]) -> None:
        super().__init__()
        width, output, patch = sizes["width"], sizes["output_dim"], sizes["patch_size"]
        self.image_size: int = sizes["image_size"]
        self.grid = self.image_size // patch
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=False)
        self.positional_embedding = nn.Parameter(torch.empty(GRID * GRID, width))
        self.ln_pre = nn.LayerNorm(width, eps=EPSILON)
        inner = int(width * sizes["mlp_ratio"])
        self.transformer = VisionEncoder(width, sizes["layers"], sizes["heads"], inner)
        self.attn_pool = Resampler(width, output, self.grid)
        self.ln_post = nn.LayerNorm(output, eps=EPSILON)
        self.proj = nn.Parameter(torch.empty(output, output))

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, 256, D), in the dtype of the weights."""
        x = self.conv1(pixels.to(self.conv1.weight.dtype))  # (N, W, grid, grid)
        x = x.flatten(2).transpose(1, 2)  # (N, P, W), patches row by row
        x = x + resize_positions(self.positional_embedding, self.grid)
        x = self.transformer(self.ln_pre(x))
        return self.ln_post(self.attn_pool(x)) @ self.proj  # type: ignore[no-any-return]

    def reset(self, generator: torch.Generator | None = None) -> None:
        """Fill the parameters that plain modules don't: tables, queries, projections."""
        with torch.no_grad():
            output = self.proj.shape[0]
            self.proj.normal_(std=output**-0.5, generator=generator)
            self.positional_embedding.normal_(std=0.02, generator=generator)
            self.attn_pool.pos_embed.copy_(sincos_positions(output))
            self.attn_pool.query.normal_(std=0.02, generator=generator)
            attention = self.attn_pool.attn
            attention.in_proj_weight.normal_(std=1 / math.sqrt(output), generator=generator)
            attention.in_proj_bias.zero_()
