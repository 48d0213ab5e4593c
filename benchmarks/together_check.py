"""Checks and times the kernels for many of the paper's CNNs on a GPU.

Usage: PYTHONPATH=. python gpu_check.py [check] [time] [sweep] [old]

Without arguments: check time old. Every part prints as soon as it is done, and an error in one does not end the others.
"""
import os, subprocess, sys, time, traceback

os.environ.setdefault("TRITON_CACHE_DIR", "/tmp/triton_cache_check")
started = time.perf_counter()
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from fer_lib import ensemble, engine
from fer_lib.networks import paper_cnn_together as together
from fer_lib.networks.paper_cnn import PaperCNN

device = torch.device("cuda")
say = lambda *what: print(f"[{time.perf_counter() - started:6.1f}s]", *what, flush=True)
rel = lambda a, b: float((a.detach().double() - b.detach().double()).norm() / b.detach().double().norm())


def part(function):
    def guarded(*arguments, **options):
        try:
            return function(*arguments, **options)
        except Exception:
            say("FAILED", function.__name__, arguments, traceback.format_exc(limit=-6))
    return guarded


def models_of(K, size, channels=1, dropout=False):
    torch.manual_seed(0)
    model = PaperCNN(image_size=size, channels=channels).to(device)
    if not dropout:
        for layer in model.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.
    shapes = {name: p.shape for name, p in model.named_parameters()}
    states = {}
    for name, shape in shapes.items():
        fan = shape[1:].numel() if len(shape) > 1 else 100
        states[name] = torch.randn(K, *shape, device=device) * ((1.4 if len(shape) > 1 else .5) / fan ** .5)
    return model, {name: s.requires_grad_() for name, s in states.items()}


@part
def layer(K, n, H, W, C, O):
    """One layer against float32 of the same bfloat16 values, in a loop of ordinary convolutions."""
    torch.manual_seed(0)
    x = torch.randn(K, n, H, W, C, device=device).bfloat16()
    w = (torch.randn(K, O, C, 3, 3, device=device) / (3 * C ** .5)).bfloat16().float()
    b = torch.randn(K, O, device=device) * .3
    mine, ref = [v.clone().requires_grad_() for v in (x, w, b)], [v.float().clone().requires_grad_() for v in (x, w, b)]
    y = together.conv_pool_relu(*mine)
    z = torch.stack([F.relu(F.max_pool2d(F.conv2d(ref[0][k].permute(0, 3, 1, 2), ref[1][k], ref[2][k]), 2)).permute(0, 2, 3, 1)
                     for k in range(K)])
    g = torch.randn_like(z).bfloat16()
    y.backward(g); z.backward(g.float())
    again = [v.clone().requires_grad_() for v in (x, w, b)]
    together.conv_pool_relu(*again).backward(g)
    say(f"layer {(K, n, H, W, C, O)}: result {rel(y, z):.1e}, gradients of x, weight, bias",
        *(f"{rel(p.grad, q.grad):.1e}" for p, q in zip(mine, ref)), "(want < 1e-2)",
        "| same bits again:", all(torch.equal(p.grad, q.grad) for p, q in zip(mine, again)))


@part
def dense_and_first(K, n):
    torch.manual_seed(0)
    for I, O in ((4608, 1024), (1024, 6)):
        x = torch.randn(K, n, I, device=device).bfloat16(); w = (torch.randn(K, O, I, device=device) / I ** .5).bfloat16().float()
        b = torch.randn(K, O, device=device)
        mine, ref = [v.clone().requires_grad_() for v in (x, w, b)], [v.float().clone().requires_grad_() for v in (x, w, b)]
        y, z = together.linear(*mine), torch.baddbmm(ref[2][:, None], ref[0], ref[1].transpose(1, 2))
        g = torch.randn_like(z).bfloat16(); y.backward(g); z.backward(g.float())
        say(f"dense {(K, n, I, O)}: {rel(y, z):.1e}", *(f"{rel(p.grad, q.grad):.1e}" for p, q in zip(mine, ref)), "(want < 1e-2)")
    for C in (1, 3):
        x = torch.rand(K, n, 64, 64, C, device=device).bfloat16()
        w, b = (torch.randn(K, 32, C, 3, 3, device=device) / 3).bfloat16().float(), (torch.randn(K, 32, device=device) * .3).bfloat16().float()
        mine, ref = [v.clone().requires_grad_() for v in (w, b)], [v.clone().requires_grad_() for v in (w, b)]
        y = together.conv_relu(x, *mine)
        z = torch.stack([F.relu(F.conv2d(x[k].float().permute(0, 3, 1, 2), ref[0][k], ref[1][k])).permute(0, 2, 3, 1) for k in range(K)])
        g = torch.randn_like(z).bfloat16(); y.backward(g); z.backward(g.float())
        say(f"first {C}: {rel(y, z):.1e}", *(f"{rel(p.grad, q.grad):.1e}" for p, q in zip(mine, ref)), "(want < 1e-2)")


@part
def whole(K, size, n=16, channels=1):
    """The whole network without dropout; bfloat16 by vmap is the yardstick: rounding chooses other maxima in both."""
    model, states = models_of(K, size, channels)
    model.train()
    images, codes = torch.rand(K, n, channels, size, size, device=device), torch.arange(K * n, device=device) % 6
    mapped = vmap(lambda s, i: functional_call(model, s, (i,)), randomness="different")
    grads, logits = {}, {}
    for kind in ("float32", "vmap", "fast"):
        mine = {name: s.detach().clone().requires_grad_() for name, s in states.items()}
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=kind != "float32"):
            out = together.forward(mine, images, training=False) if kind == "fast" else mapped(mine, images)
        F.cross_entropy(out.float().flatten(0, 1), codes, reduction="sum").backward()
        grads[kind], logits[kind] = {name: s.grad for name, s in mine.items()}, out.float()
    say(f"whole K={K} {size}px: logits fast {rel(logits['fast'], logits['float32']):.1e}, bfloat16 vmap {rel(logits['vmap'], logits['float32']):.1e}; "
        "gradients (fast / vmap against float32):",
        ", ".join(f"{name} {rel(grads['fast'][name], g):.1e}/{rel(grads['vmap'][name], g):.1e}" for name, g in grads["float32"].items()))


def timed(function, repeats=10, warm=2):
    for _ in range(warm):
        function()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    torch.cuda.synchronize(); events[0].record()
    for _ in range(repeats):
        function()
    events[1].record(); torch.cuda.synchronize()
    return events[0].elapsed_time(events[1]) / repeats


@part
def updates(K=64, size=64, n=16, profile=True, repeats=15):
    model, states = models_of(K, size, dropout=True)
    model.train()
    forward = ensemble._mapped(model, device, "bfloat16")
    optimizer = torch.optim.Adam(list(states.values()), lr=1e-4, eps=1e-7, fused=True)
    images = torch.randint(0, 256, (500 * K, 1, size, size), dtype=torch.uint8, device=device)
    data = (images, torch.arange(len(images), device=device) % 6, torch.ones(len(images), device=device),
            torch.arange(K, device=device) * 500)
    batch = torch.randint(0, 500, (K, n)), torch.ones(K, n)
    run = lambda count: ensemble._train_epoch(forward, states, optimizer, data, [batch] * count, None, "bfloat16")
    run(3); torch.cuda.synchronize()
    t = time.perf_counter(); run(repeats); torch.cuda.synchronize(); ms = (time.perf_counter() - t) / repeats * 1e3
    say(f"update of {K} at {size}px, batch {n}: {ms:.2f} ms, {K * n / ms * 1e3:.0f} images/s, peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    if profile:
        from torch.profiler import ProfilerActivity, profile as profiler
        with profiler(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as p:
            run(5); torch.cuda.synchronize()
        # kernels only, per update
        rows = {}
        for event in p.events():
            if event.device_type == torch.autograd.DeviceType.CUDA and not event.name.startswith(("aten::", "Optimizer")):
                entry = rows.setdefault(event.name, [0., 0]); entry[0] += event.device_time_total if hasattr(event, "device_time_total") else event.cuda_time_total; entry[1] += 1
        say(f"kernels, ms per update (all: {sum(r[0] for r in rows.values()) / 5e3:.2f}), calls per update:")
        for name, (us, calls) in sorted(rows.items(), key=lambda r: -r[1][0])[:32]:
            print(f"   {us / 5e3:8.3f} {calls / 5:6.1f}  {name[:150]}")
        sys.stdout.flush()


@part
def single(K=64, n=16):
    """Each layer's kernels alone, in ms and TFLOP/s; three Triton kernels have one name for all layers."""
    for H, C, O in ((62, 32, 64), (30, 64, 128), (14, 128, 128)):
        x = torch.randn(K, n, H, H, C, device=device).bfloat16()
        w, b = torch.randn(K, O, C, 3, 3, device=device) / (3 * C ** .5), torch.randn(K, O, device=device)
        flop = 2 * K * n * ((H - 2) // 2 * 2) ** 2 * 9 * C * O
        for name, time_ms in kernel_times(x, w, b).items():
            print(f"   {H}px {C}->{O} {name:10s} {time_ms:7.3f} ms" + (f" {flop / time_ms / 1e9:6.0f} TFLOP/s" if name != "unpooled" else ""), flush=True)


def kernel_times(x, w, b, only=("pooled", "unpooled", "to_input", "to_weight"), repeats=10):
    k, H, W, (C, O) = together.kernels, x.shape[2], x.shape[3], (x.shape[4], w.shape[1])
    K, n, out, tri = len(x), x.shape[1], {}, together.triton
    y = together.conv_pool_relu(x, w, b)
    which, table = torch.zeros_like(y, dtype=torch.uint8), w.permute(0, 3, 4, 2, 1).bfloat16().contiguous()
    shape, pixels, windows = dict(H=H, W=W, C=C, O=O), n * H * W, y[0, ..., 0].numel()
    slopes = torch.randn(2 * W + 2 + K * pixels + 4, O, device=device, dtype=torch.bfloat16)
    if "pooled" in only:
        c = together._fitting(together.POOLED, O, DEPTH=C, WIDTH=O)
        out["pooled"] = timed(lambda: k.pooled[tri.cdiv(windows, c["WINDOWS"]) * (O // c["WIDTH"]), K](x, table, b, y, which, n, **shape, **c), repeats)
    if "unpooled" in only:
        cells = 2048 // O
        programs = tri.cdiv(n * ((H + 1) // 2) * ((W + 1) // 2), cells)
        parts = torch.empty(K, programs, O, device=device)
        out["unpooled"] = timed(lambda: k.unpooled[programs, K](y, which, slopes, parts, n, H=H, W=W, O=O, CELLS=cells, **together.UNPOOLED), repeats)
    if "to_input" in only:
        c, to_x = together._fitting(together.TO_INPUT, C, DEPTH=O, WIDTH=C), torch.empty_like(x)
        out["to_input"] = timed(lambda: k.to_input[tri.cdiv(pixels, 4 * c["FOURS"]) * (C // c["WIDTH"]), K](slopes, table, to_x, n, **shape, **c), repeats)
    if "to_weight" in only:
        c = together._fitting(together.TO_WEIGHT, O, WIDTH=C)
        steps = tri.cdiv(pixels, 4 * c["FOURS"]); p = tri.cdiv(steps, together.STEPS)
        sums = torch.empty(K, p, 9, O, C, device=device)
        out["to_weight"] = timed(lambda: k.to_weight[3 * (C // c["WIDTH"]), p, K](x, slopes, sums, n, tri.cdiv(steps, p), **shape, **c), repeats)
    return out


@part
def sweep(K=64, n=16, only=None, repeats=5):
    """Other blocks for the three large kernels; "own" marks the module's. only : "H kernel", to do one of them."""
    w4, w8 = {"num_warps": 4}, {"num_warps": 8}
    for H, C, O in ((62, 32, 64), (30, 64, 128), (14, 128, 128)):
        x = torch.randn(K, n, H, H, C, device=device).bfloat16()
        w, b = torch.randn(K, O, C, 3, 3, device=device) / (3 * C ** .5), torch.randn(K, O, device=device)
        lists = {"pooled": (together.POOLED, O, [dict(WINDOWS=64, DEPTH=d, WIDTH=min(wd, O), num_stages=s, num_warps=q) for d, wd, s, q in
                            ((32, 64, 2, 4), (32, 64, 3, 4), (64, 64, 2, 4), (32, 128, 2, 8), (32, 128, 3, 8), (16, 64, 3, 4), (16, 128, 4, 8)) if d <= C and wd <= O]),
                 "to_input": (together.TO_INPUT, C, [dict(FOURS=64, DEPTH=d, WIDTH=wd, num_stages=s, num_warps=q) for d, wd, s, q in
                              ((32, 32, 2, 4), (32, 32, 3, 4), (64, 32, 2, 4), (32, 64, 2, 4), (32, 64, 3, 4), (64, 64, 2, 4), (32, 128, 2, 8), (32, 128, 3, 8), (64, 128, 2, 8)) if wd <= C and wd * 4 >= C]),
                 "to_weight": (together.TO_WEIGHT, O, [dict(FOURS=f, WIDTH=wd, num_stages=s, num_warps=q) for f, wd, s, q in
                               ((32, 32, 2, 4), (32, 32, 3, 4), (64, 32, 2, 4), (32, 64, 2, 8), (32, 64, 3, 8), (16, 64, 3, 8)) if wd <= C and not (f == 64 and O == 128)])}
        for name, (table, key, choices) in lists.items():
            if only not in (None, f"{H} {name}"):
                continue
            own = table[key]
            for c in choices:
                table[key] = c
                try:
                    ms = kernel_times(x, w, b, (name,), repeats=repeats)[name]
                    print(f"   {H}px {name:9s} {ms:7.3f} ms {'own ' if c == own else '    '} {c}", flush=True)
                except Exception as error:
                    print(f"   {H}px {name} {c}: {type(error).__name__} {str(error)[:120]}", flush=True)
            table[key] = own
        if (O == 64 or C == 64) and only is None:
            for steps in (28, 112):
                own, together.STEPS = together.STEPS, steps
                try:
                    print(f"   {H}px to_weight {kernel_times(x, w, b, ('to_weight',), repeats=5)['to_weight']:7.3f} ms STEPS={steps}", flush=True)
                finally:
                    together.STEPS = own


PLAIN = {62: {"pooled": [(64, 32, 64, 4, 4), (64, 32, 64, 3, 4)], "to_input": [(64, 64, 32, 3, 4), (32, 64, 32, 4, 4)],
              "to_weight": [(16, 0, 32, 4, 4), (32, 0, 32, 3, 4)]},
         30: {"pooled": [(64, 64, 128, 3, 8), (64, 32, 128, 4, 8), (64, 64, 64, 3, 4)], "to_input": [(32, 64, 64, 4, 4), (64, 64, 64, 3, 4)],
              "to_weight": [(16, 0, 64, 4, 8), (32, 0, 64, 2, 8)]},
         14: {"pooled": [(64, 64, 128, 3, 8), (64, 32, 128, 4, 8), (64, 64, 64, 3, 4)], "to_input": [(32, 64, 128, 3, 4), (32, 64, 128, 4, 8)],
              "to_weight": [(16, 0, 64, 4, 8), (32, 0, 64, 2, 8)]}}


@part
def plain(K=64, n=16, only=None, repeats=5):
    """gpu_alternatives.py's kernels."""
    import gpu_alternatives
    for H, C, O in ((62, 32, 64), (30, 64, 128), (14, 128, 128)):
        if only not in (None, str(H)):
            continue
        x = torch.randn(K, n, H, H, C, device=device).bfloat16()
        w, b = torch.randn(K, O, C, 3, 3, device=device) / (3 * C ** .5), torch.randn(K, O, device=device)
        for name, (table, key) in {"pooled": (together.POOLED, O), "to_input": (together.TO_INPUT, C), "to_weight": (together.TO_WEIGHT, O)}.items():
            own, kernel = table[key], getattr(together.kernels, name)
            for size, depth, width, stages, warps in PLAIN[H][name]:
                c = {"WINDOWS" if name == "pooled" else "FOURS": size, "WIDTH": width, "num_stages": stages, "num_warps": warps} | ({"DEPTH": depth} if depth else {})
                try:
                    table[key] = c
                    setattr(together.kernels, name, getattr(gpu_alternatives, name))
                    print(f"   {H}px {name:9s} {kernel_times(x, w, b, (name,), repeats=repeats)[name]:7.3f} ms plain {c}", flush=True)
                except Exception as error:
                    print(f"   {H}px {name} plain {c}: {type(error).__name__} {str(error)[:120]}", flush=True)
                finally:
                    table[key] = own
                    setattr(together.kernels, name, kernel)


def warm(size):
    """Compiles all kernels of a size into the cache on disk."""
    _, states = models_of(1, size)
    together.forward(states, torch.rand(1, 16, 1, size, size, device=device)).sum().backward()


def helpers(*tasks):
    """Waits for this script's processes that compile, all at once."""
    for process in [subprocess.Popen([sys.executable, __file__, *task], stdout=subprocess.DEVNULL) for task in tasks]:
        process.wait()
    say("compiled", tasks)


if __name__ == "__main__":
    if sys.argv[1:2] == ["warm"]:
        sys.exit(warm(int(sys.argv[2])))
    if sys.argv[1:2] == ["compile"]:
        sys.exit(sweep(K=1, only=sys.argv[2], repeats=1))
    if sys.argv[1:2] == ["compile_plain"]:
        sys.exit(plain(K=1, only=sys.argv[2], repeats=1))
    wanted = sys.argv[1:] or ["check", "time", "old"]
    say(torch.cuda.get_device_name(), torch.__version__, together.triton and together.triton.__version__, "usable:", together.usable(device, "bfloat16"))
    if set(wanted) & {"check", "time"}:
        helpers(("warm", "64"), ("warm", "48"))
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        if "check" in wanted:
            for shape in ((2, 3, 35, 35, 32, 64), (3, 16, 62, 62, 32, 64), (3, 16, 30, 30, 64, 128), (3, 16, 14, 14, 128, 128)):
                layer(*shape)
            dense_and_first(3, 16)
            whole(8, 64)
        if "time" in wanted:
            updates()
            say("each layer's kernels alone:"); single()
        if "check" in wanted:
            whole(64, 64)
            whole(8, 48)
        if "old" in wanted:
            own, together.usable = together.usable, lambda *_: False
            updates(profile=False, repeats=5)
            together.usable = own
        if "check" in wanted:
            whole(64, 48)
        if "time" in wanted:
            updates(size=48, profile=False)
    if "sweep" in wanted:
        helpers(*(("compile", f"{H} {name}") for H in (62, 30, 14) for name in ("pooled", "to_input", "to_weight")),
                *(("compile_plain", str(H)) for H in (62, 30, 14)))
        say("other blocks:"); sweep()
        say("plainer kernels:"); plain()
    say("done")
