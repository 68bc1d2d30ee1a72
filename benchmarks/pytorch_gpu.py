#!/usr/bin/env python3
"""Tokens per second of forward and backward pass of the models of gpu.cu in PyTorch on a CUDA device.

bf16: float32 weights under autocast to bfloat16, attention by scaled_dot_product_attention, as training loops have it; tf32: float32
with TF32 products. --compile adds torch.compile. Models are written plainly here; work is counted as in gpu.cu.

usage: pytorch_gpu.py [--compile] [steps [124M|1B|tiny ...]]
"""

import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

# layers, heads, key heads, head_dim, intermediate, vocabulary, rows, tokens a row, gpt2
SHAPES = {
    "124M": (12, 12, 12, 64, 3072, 50257, 16, 1024, True),
    "1B": (16, 32, 8, 64, 8192, 128256, 4, 2048, False),
    "tiny": (2, 2, 1, 16, 64, 96, 2, 32, False),
}


def rotate(x, cosine, sine):
    low, high = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-high, low), dim=-1) * sine


class Block(nn.Module):
    def __init__(self, hidden, heads, key_heads, head_dim, intermediate, gpt2):
        super().__init__()
        self.sizes = (heads, key_heads, head_dim)
        norm = nn.LayerNorm if gpt2 else nn.RMSNorm
        self.norm_1, self.norm_2 = norm(hidden, eps=1e-5), norm(hidden, eps=1e-5)
        self.query = nn.Linear(hidden, heads * head_dim, bias=gpt2)
        self.key, self.value = (nn.Linear(hidden, key_heads * head_dim, bias=gpt2) for _ in range(2))
        self.output = nn.Linear(heads * head_dim, hidden, bias=gpt2)
        self.gate = None if gpt2 else nn.Linear(hidden, intermediate, bias=False)
        self.up, self.down = nn.Linear(hidden, intermediate, bias=gpt2), nn.Linear(intermediate, hidden, bias=gpt2)

    def forward(self, x, cosine, sine):
        batch, tokens, _ = x.shape
        heads, key_heads, head_dim = self.sizes
        y = self.norm_1(x)
        q = self.query(y).view(batch, tokens, heads, head_dim).transpose(1, 2)
        k, v = (f(y).view(batch, tokens, key_heads, head_dim).transpose(1, 2) for f in (self.key, self.value))
        if cosine is not None:
            q, k = rotate(q, cosine, sine).to(v.dtype), rotate(k, cosine, sine).to(v.dtype)
        if key_heads != heads:
            k, v = (t.repeat_interleave(heads // key_heads, dim=1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(y.transpose(1, 2).reshape(batch, tokens, heads * head_dim))
        y = self.norm_2(x)
        if self.gate is None:
            return x + self.down(F.gelu(self.up(y), approximate="tanh"))
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Model(nn.Module):
    def __init__(self, layers, heads, key_heads, head_dim, intermediate, vocabulary, _, tokens, gpt2):
        super().__init__()
        hidden = heads * head_dim
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.position = nn.Embedding(tokens, hidden) if gpt2 else None
        self.blocks = nn.ModuleList(Block(hidden, heads, key_heads, head_dim, intermediate, gpt2) for _ in range(layers))
        self.norm = (nn.LayerNorm if gpt2 else nn.RMSNorm)(hidden, eps=1e-5)
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)
        frequency = 500000.0 ** (-torch.arange(0, head_dim, 2) / head_dim)
        angle = torch.outer(torch.arange(tokens), frequency)
        self.register_buffer("cosine", None if gpt2 else torch.cat((angle, angle), dim=-1).cos())
        self.register_buffer("sine", None if gpt2 else torch.cat((angle, angle), dim=-1).sin())

    def forward(self, ids, targets):
        x = self.embedding(ids)
        if self.position is not None:
            x = x + self.position.weight
        for block in self.blocks:
            x = block(x, self.cosine, self.sine)
        logits = F.linear(self.norm(x), self.embedding.weight)
        return F.cross_entropy(logits.float().view(-1, logits.shape[-1]), targets.view(-1))


def measure(name, precision, steps, compiled):
    layers, heads, key_heads, head_dim, intermediate, vocabulary, rows, tokens, gpt2 = SHAPES[name]
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = True
    device = torch.device("cuda")
    model = Model(*SHAPES[name]).to(device)
    run = torch.compile(model) if compiled else model
    ids, targets = (torch.randint(0, vocabulary, (rows, tokens), device=device) for _ in range(2))

    def step():
        model.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            loss = run(ids, targets)
        loss.backward()
        return loss.item()

    for _ in range(3):
        step()
    times = []
    for _ in range(steps):
        torch.cuda.synchronize()
        start = time.perf_counter()
        loss = step()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    seconds = sorted(times)[len(times) // 2]
    hidden = heads * head_dim
    weights = layers * hidden * (2 * hidden + 2 * key_heads * head_dim + (2 if gpt2 else 3) * intermediate) + hidden * vocabulary
    rate = (6 * weights + 6 * layers * tokens * hidden) * rows * tokens / seconds * 1e-12
    what = f"pytorch {torch.__version__}" + (" compiled" if compiled else "")
    print(f"{name:5} {precision:5} {what}: {rows * tokens / seconds:10.0f} tokens/s, {seconds * 1e3:.3f} ms, {rate:.2f} TFLOP/s, loss {loss:.3f}")
    print(json.dumps({"benchmark": "gpu_training", "what": what, "shape": name, "precision": precision,
                      "tokens_per_s": round(rows * tokens / seconds), "ms": round(seconds * 1e3, 3), "tflops": round(rate, 3)}))


def main():
    arguments = [a for a in sys.argv[1:] if a != "--compile"]
    steps = int(arguments[0]) if arguments else 20
    names = arguments[1:] or ["124M", "1B"]
    for name in names:
        if name not in SHAPES:
            sys.exit(f"pytorch_gpu.py: no shape '{name}'; expected {', '.join(SHAPES)}")
    if not torch.cuda.is_available():
        sys.exit("pytorch_gpu.py: this PyTorch sees no CUDA device")
    for name in names:
        for precision in ("bf16", "tf32"):
            measure(name, precision, steps, "--compile" in sys.argv)


if __name__ == "__main__":
    main()
