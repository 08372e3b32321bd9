/* Rounds the sums of pooling operations, which are computed pixel by pixel. */
#include "backend/cpu/pool.h"

#include "backend/cpu/chunk.h"

typedef struct Pool {
  NitiCpu *cpu;
  int8_t *out;
  NitiShape shape;
  NitiPoolGather gather;
  const void *context;
  size_t pixels; /* of a tile; 1 where the channels of one pixel take several tiles */
  size_t parts;  /* tiles of one pixel's channels */
  NitiRequantiseKernel kernel;
  const NitiRounder *rounder;
  uint32_t max;
} Pool;

static void gather_tile(void *context, size_t thread, size_t item) {
  Pool *p = context;
  const size_t W = (size_t)p->shape.w, H = (size_t)p->shape.h, C = (size_t)p->shape.c, all = (size_t)p->shape.n * H * W;
  const size_t first = item / p->parts * p->pixels, left = all - first, pixels = left < p->pixels ? left : p->pixels;
  const size_t c = item % p->parts * NITI_ACC_CHUNK, count = C - c < NITI_ACC_CHUNK ? C - c : NITI_ACC_CHUNK;
  const size_t index = first * C + c;
  int32_t acc[NITI_ACC_CHUNK];
  (void)thread;
  size_t w = first % W, h = first / W % H, n = first / W / H;
  for (size_t i = 0; i < pixels; ++i) {
    p->gather(acc + i * count, p->context, (int32_t)n, (int32_t)h, (int32_t)w, (int32_t)c, (int32_t)count);
    if (++w < W) continue;
    w = 0;
    if (++h < H) continue;
    h = 0;
    ++n;
  }
  niti_max_raise((_Atomic uint32_t *)&p->max, p->kernel(p->out + index, acc, pixels * count, p->rounder, index, 0));
}

static uint32_t run(void *context, const NitiRounder *rounder) {
  Pool *p = context;
  const size_t all = (size_t)p->shape.n * (size_t)p->shape.h * (size_t)p->shape.w;
  p->rounder = rounder;
  p->max = 0;
  niti_threads_run(p->cpu->threads, gather_tile, p, niti_divide_up(all, p->pixels) * p->parts);
  return p->max;
}

int niti_pool_requantise(NitiCpu *cpu, int8_t *out, NitiShape shape, const NitiRequantise *rq, NitiPoolGather gather,
                         const void *context) {
  const size_t C = (size_t)shape.c;
  Pool p = {.cpu = cpu,
            .out = out,
            .shape = shape,
            .gather = gather,
            .context = context,
            .pixels = C < NITI_ACC_CHUNK ? NITI_ACC_CHUNK / C : 1,
            .parts = niti_divide_up(C, NITI_ACC_CHUNK),
            .kernel = cpu->requantise};
  return niti_cpu_requantise(cpu, rq, false, NULL, run, &p);
}
