#!/usr/bin/env python3
"""Tokens per second of the forward and backward pass of the model of training.cpp in PyTorch (eager, float32, CPU).

No optimizer step and no zero_grad but setting gradients to None, as PyTorch does by default. The model is written
plainly here: RMSNorm, rotary positions, scaled_dot_product_attention (causal), SwiGLU, untied output layer.

usage: pytorch_training.py [threads] [steps]
"""

import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

HIDDEN, LAYERS, HEADS, INTERMEDIATE, VOCABULARY, BATCH, TOKENS = 192, 4, 4, 512, 256, 8, 128
HEAD_DIM = HIDDEN // HEADS


def rotate(x, cosine, sine):
    low, high = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-high, low), dim=-1) * sine


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm_1 = nn.RMSNorm(HIDDEN, eps=1e-5)
        self.norm_2 = nn.RMSNorm(HIDDEN, eps=1e-5)
        self.query, self.key, self.value, self.output = (nn.Linear(HIDDEN, HIDDEN, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(HIDDEN, INTERMEDIATE, bias=False) for _ in range(2))
        self.down = nn.Linear(INTERMEDIATE, HIDDEN, bias=False)

    def forward(self, x, cosine, sine):
        batch, tokens, _ = x.shape
        y = self.norm_1(x)
        q, k, v = (f(y).view(batch, tokens, HEADS, HEAD_DIM).transpose(1, 2) for f in (self.query, self.key, self.value))
        q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(y.transpose(1, 2).reshape(batch, tokens, HIDDEN))
        y = self.norm_2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, HIDDEN)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(HIDDEN, eps=1e-5)
        self.head = nn.Linear(HIDDEN, VOCABULARY, bias=False)
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)
        frequency = 10000.0 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        angle = torch.outer(torch.arange(TOKENS), frequency)
        self.register_buffer("cosine", torch.cat((angle, angle), dim=-1).cos())
        self.register_buffer("sine", torch.cat((angle, angle), dim=-1).sin())

    def forward(self, ids):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, self.cosine, self.sine)
        return self.head(self.norm(x))


def main():
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    model = Model()
    ids = torch.randint(0, VOCABULARY, (BATCH, TOKENS))
    targets = torch.randint(0, VOCABULARY, (BATCH * TOKENS,))

    def step():
        model.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(ids).view(-1, VOCABULARY), targets)
        loss.backward()
        return loss.item()

    for _ in range(3):
        step()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        loss = step()
        times.append(time.perf_counter() - start)
    times.sort()
    tokens = BATCH * TOKENS
    median, best = times[len(times) // 2], times[0]
    print(f"PyTorch {torch.__version__}, {threads} threads, {sum(p.numel() for p in model.parameters())} parameters, "
          f"loss {loss:.4f}")
    print(f"median {tokens / median:.0f} tokens/s ({median * 1e3:.2f} ms), best {tokens / best:.0f}")
    print(json.dumps({"benchmark": "training", "what": f"pytorch {torch.__version__}", "threads": threads,
                      "median_tokens_per_s": round(tokens / median), "best_tokens_per_s": round(tokens / best),
                      "median_ms": round(median * 1e3, 3)}))


if __name__ == "__main__":
    main()
