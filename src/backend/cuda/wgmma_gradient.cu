/* The weight gradient for Hopper: a product over images and positions, with wgmma on the tensors' layouts.
 *
 * In a blocked layout a position is [channels][16 images], which is what wgmma reads unswizzled: 8 rows of 16 bytes are 128
 * neighbouring bytes. A block computes 128 or 64 output channels x 128 or 64 input channels x 3 taps of one window row: one
 * warpgroup per tap, all on the same copied run of deltas and inputs, each with the inputs shifted by its tap. The sum's range is
 * divided evenly among the blocks, which leave what they summed of each tile in the workspace; a second kernel adds these parts
 * up. Block b's part of tile t is number b + t: from one part to the next either the block or the tile or both go on, so no two
 * are the same. Stride is 1. */
#include <string.h>

#include "backend/cuda/hopper.cuh"
#include "backend/cuda/wgmma.h"

enum {
  TILE = 128,
  HALF = 64, /* channels of either kind */
  LEAST = 40,
  TAPS = 3, /* of a window row in a block: warpgroups that multiply */
  THREADS = (TAPS + 1) * 128,
  ROWS_MAX = 16, /* of a window */
  STAGES_MAX = 8,
  BARRIER_BYTES = 2 * STAGES_MAX * 8,
  SHARED_ALIGN = 1024,
  SHARED_BYTES = 227 * 1024
};

struct GradientTiling {
  int k, c, kh, kw, pad_h, pad_w;
  int tile_k, tile_c;            /* output and input channels of a tile: TILE or HALF */
  int tiles_k, tiles_c, tiles_w; /* tiles of a window row: along output and input channels, and runs of TAPS taps */
  int positions;                 /* of a unit, the step of the sum: this many neighbours of one row of deltas, times 16 images */
  int runs;                      /* of positions in a row of deltas */
  int first_row[ROWS_MAX], rows[ROWS_MAX]; /* of deltas that meet the image, for each window row */
  int64_t begin[ROWS_MAX + 1];             /* units before each window row */
  int blocks_n, stages;
  int blocks;      /* of the launch */
  int x_positions; /* copied: positions + halo */
};

/* int32 sums of a tile, in the order of the threads' accumulators. */
__host__ __device__ inline int part_of(const GradientTiling &t) { return TAPS * t.tile_k * t.tile_c; }

/* A stretch of one tile's sum. */
struct Stretch {
  int tile, kh, kw, k, c; /* the tile: its number, window row, first tap, first channels */
  int unit, count;
};

__device__ inline Stretch stretch_at(const GradientTiling &t, int64_t at, int64_t end) {
  Stretch s;
  int before = 0;
  s.kh = 0;
  while (at >= t.begin[s.kh + 1]) ++s.kh, before += t.tiles_k * t.tiles_c * t.tiles_w;
  const int units = t.blocks_n * t.rows[s.kh] * t.runs;
  int tile = (int)((at - t.begin[s.kh]) / units);
  s.tile = before + tile;
  s.unit = (int)((at - t.begin[s.kh]) % units);
  const int64_t left = end - at;
  s.count = units - s.unit < left ? units - s.unit : (int)left;
  s.c = tile % t.tiles_c * t.tile_c;
  tile /= t.tiles_c;
  s.k = tile % t.tiles_k * t.tile_k;
  s.kw = tile / t.tiles_k * TAPS;
  return s;
}

/* The first unit of a block's stretch; block t.blocks is the end of the last. */
__host__ __device__ inline int64_t first_unit(const GradientTiling &t, int64_t block) { return t.begin[t.kh] * block / t.blocks; }

template <int POSITIONS, int TILE_K, int TILE_C>
__global__ void __launch_bounds__(THREADS, 1)
    gradient(const __grid_constant__ CUtensorMap dy_map, const __grid_constant__ CUtensorMap x_map,
             const __grid_constant__ GradientTiling t, int4 *__restrict__ parts) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  enum { DY_POSITION = TILE_K * NITI_BLOCK_IMAGES, X_POSITION = TILE_C * NITI_BLOCK_IMAGES, HALVES = TILE_K / HALF };
  extern __shared__ uint8_t raw[];
  const uint32_t full = niti_shared_address(raw), free = full + 8 * STAGES_MAX;
  const uint32_t stages = (full + BARRIER_BYTES + SHARED_ALIGN - 1) / SHARED_ALIGN * SHARED_ALIGN;
  const uint32_t dy_bytes = (uint32_t)POSITIONS * DY_POSITION, stage_bytes = dy_bytes + (uint32_t)t.x_positions * X_POSITION;
  const int64_t begin = first_unit(t, blockIdx.x), end = first_unit(t, blockIdx.x + 1);
  const int warp = niti_uniform((int)threadIdx.x >> 5), group = warp >> 2;

  if (threadIdx.x == 0) {
    for (int i = 0; i < t.stages; ++i) niti_barrier_init(full + 8 * i, 1), niti_barrier_init(free + 8 * i, 4 * TAPS);
    niti_barrier_publish();
  }
  __syncthreads();
  niti_kernel_begin();

  if (group == TAPS) {
    niti_registers_lower<32>();
    if (threadIdx.x == TAPS * 128) {
      niti_prefetch_map(&dy_map);
      niti_prefetch_map(&x_map);
      uint32_t stage = 0, parity = 0;
      for (int64_t at = begin; at < end;) {
        const Stretch s = stretch_at(t, at, end);
        int run = s.unit % t.runs, row = s.unit / t.runs % t.rows[s.kh], n = s.unit / t.runs / t.rows[s.kh];
        for (int i = 0; i < s.count; ++i) {
          const uint32_t barrier = full + 8 * stage, to = stages + stage * stage_bytes;
          const int oh = t.first_row[s.kh] + row, ow = run * t.positions;
          niti_barrier_wait(free + 8 * stage, parity ^ 1);
          niti_barrier_expect(barrier, stage_bytes);
          niti_copy_box(to, &dy_map, barrier, s.k * 2, ow, oh, n);
          niti_copy_box(to + dy_bytes, &x_map, barrier, s.c * 2, ow + s.kw - t.pad_w, oh + s.kh - t.pad_h, n);
          if (++stage == (uint32_t)t.stages) stage = 0, parity ^= 1;
          if (++run == t.runs) {
            run = 0;
            if (++row == t.rows[s.kh]) row = 0, ++n;
          }
        }
        at += s.count;
      }
    }
  } else {
    niti_registers_raise<160>();
    const int lane = threadIdx.x & 31;
    constexpr uint32_t layout = niti_descriptor_layout(NITI_SWIZZLE_NONE, 128);
    const uint32_t dy_first = niti_descriptor(stages, DY_POSITION);
    const uint32_t x_first = niti_descriptor(stages + dy_bytes + (uint32_t)group * X_POSITION, X_POSITION);
    uint32_t stage = 0, parity = 0, last = 0;
    for (int64_t at = begin; at < end;) {
      const Stretch s = stretch_at(t, at, end);
      int acc[HALVES][TILE_C / 2];
      bool add = false;
      for (int i = 0; i < s.count; ++i) {
        niti_barrier_wait(full + 8 * stage, parity);
        const uint32_t offset = stage * stage_bytes >> 4;
        niti_wgmma_fence();
        uint32_t a = dy_first + offset, b = x_first + offset;
#pragma unroll
        for (int p = 0; p < POSITIONS; p += 2, a += 2 * DY_POSITION >> 4, b += 2 * X_POSITION >> 4) {
#pragma unroll
          for (int half = 0; half < HALVES; ++half)
            niti_wgmma<layout>(acc[half], a + (half * HALF * NITI_BLOCK_IMAGES >> 4), b, add);
          add = true;
        }
        niti_wgmma_commit();
        if (i > 0) {
          niti_wgmma_wait<1>();
          if (lane == 0) niti_barrier_arrive(free + 8 * last);
        }
        last = stage;
        if (++stage == (uint32_t)t.stages) stage = 0, parity ^= 1;
      }
      niti_wgmma_wait<0>();
      if (lane == 0) niti_barrier_arrive(free + 8 * last);
      at += s.count;
      int4 *out = parts + (size_t)(blockIdx.x + (unsigned)s.tile) * (TAPS * TILE_K * TILE_C / 4);
#pragma unroll
      for (int i = 0; i < HALVES * TILE_C / 8; ++i) {
        const int *a = acc[i / (TILE_C / 8)] + 4 * (i % (TILE_C / 8));
        out[i * (TAPS * 128) + threadIdx.x] = make_int4(a[0], a[1], a[2], a[3]);
      }
    }
  }
#endif
}

enum { SUM_THREADS = 256, GROUPS_MAX = 8 };

/* gradient = the sum of all blocks' parts. A thread has four neighbouring accumulators of a tile, of every GROUPS-th part; the
 * threads of the first group add up those of the others. */
template <typename T, int GROUPS>
__global__ void __launch_bounds__(SUM_THREADS)
    add_parts(const __grid_constant__ GradientTiling t, const int4 *__restrict__ parts, T *__restrict__ out) {
  niti_kernel_begin();
  enum { PLACES = SUM_THREADS / GROUPS };
  __shared__ T others[4][GROUPS > 1 ? SUM_THREADS : 1];
  const int sum_group = (int)threadIdx.x / PLACES, vectors = part_of(t) / 4;
  const int place = (int)blockIdx.x % (vectors / PLACES) * PLACES + (int)threadIdx.x % PLACES;
  const int tile = (int)blockIdx.x / (vectors / PLACES);
  const int per_row = t.tiles_k * t.tiles_c * t.tiles_w, kh = tile / per_row, units = t.blocks_n * t.rows[kh] * t.runs;
  const int64_t begin = t.begin[kh] + (int64_t)(tile % per_row) * units, end = begin + units, total = t.begin[t.kh];
  T sum[4] = {0, 0, 0, 0};
  if (units > 0) {
    int block = (int)(begin * t.blocks / total), last = (int)((end - 1) * t.blocks / total);
    while (first_unit(t, block + 1) <= begin) ++block;
    while (first_unit(t, last + 1) < end) ++last;
#pragma unroll 8
    for (block += sum_group; block <= last; block += GROUPS) {
      const int4 next = __ldcs(parts + (size_t)(block + tile) * vectors + place);
      sum[0] += next.x;
      sum[1] += next.y;
      sum[2] += next.z;
      sum[3] += next.w;
    }
  }
  if (GROUPS > 1) {
#pragma unroll
    for (int i = 0; i < 4; ++i) others[i][threadIdx.x % (GROUPS > 1 ? SUM_THREADS : 1)] = sum[i];
    __syncthreads();
    if (sum_group > 0) return;
#pragma unroll
    for (int other = 1; other < GROUPS; ++other) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[i] += others[i][other * PLACES + threadIdx.x];
    }
  }
  const int group = place % (TAPS * 128) / 128, thread = place % 128, i = place / (TAPS * 128), lane = thread & 31;
  const int columns = t.tile_c / 8, c = tile % t.tiles_c * t.tile_c + i % columns * 8 + 2 * (lane & 3),
            k = tile / t.tiles_c % t.tiles_k * t.tile_k + i / columns * HALF + thread / 32 * 16 + (lane >> 2);
  const int kw = tile % per_row / (t.tiles_c * t.tiles_k) * TAPS + group;
  if (kw >= t.kw || c >= t.c || k >= t.k) return;
  T *at = out + (((size_t)k * t.kh + kh) * t.kw + kw) * t.c + c;
  at[0] = sum[0];
  at[1] = sum[1];
  if (k + 8 < t.k) {
    at += (size_t)8 * t.kh * t.kw * t.c;
    at[0] = sum[2];
    at[1] = sum[3];
  }
}

/* ---- the host's side ---- */

static int ceil_div(int a, int b) { return (a + b - 1) / b; }

extern "C" bool niti_wgmma_serves_gradient(const NitiConv *c) {
  return c->stride_h == 1 && c->stride_w == 1 && c->kw >= 2 && c->kh <= ROWS_MAX && c->c % 2 == 0 && c->c >= LEAST &&
         c->k >= LEAST && c->ow >= 3 && c->pad_h < c->kh && c->pad_w < c->kw;
}

static int stage_of(const GradientTiling &t) {
  return (t.positions * t.tile_k + t.x_positions * t.tile_c) * NITI_BLOCK_IMAGES; /* bytes */
}

/* For this many blocks of images. way: 0, or 1 or 2 for 4 or 8 positions. */
static void tile_by(GradientTiling *t, const NitiConv *c, int blocks_n, int multiprocessors, int way, int tile_k, int tile_c) {
  memset(t, 0, sizeof *t);
  t->k = c->k, t->c = c->c, t->kh = c->kh, t->kw = c->kw, t->pad_h = c->pad_h, t->pad_w = c->pad_w;
  t->tile_k = tile_k;
  t->tile_c = tile_c;
  t->tiles_k = ceil_div(c->k, t->tile_k);
  t->tiles_c = ceil_div(c->c, t->tile_c);
  t->tiles_w = ceil_div(c->kw, TAPS);
  /* four cost more copies, and leave less beyond the end of a row */
  const bool four = 11 * 4 * ceil_div(c->ow, 4) < 10 * 8 * ceil_div(c->ow, 8);
  t->positions = way > 0 ? 4 * way : four ? 4 : 8;
  t->runs = ceil_div(c->ow, t->positions);
  t->blocks_n = blocks_n;
  t->x_positions = t->positions + TAPS - 1;
  for (int kh = 0; kh < c->kh; ++kh) {
    const int first = c->pad_h - kh > 0 ? c->pad_h - kh : 0;
    const int end = c->h + c->pad_h - kh < c->oh ? c->h + c->pad_h - kh : c->oh;
    t->first_row[kh] = first;
    t->rows[kh] = end > first ? end - first : 0;
    t->begin[kh + 1] = t->begin[kh] + (int64_t)t->tiles_k * t->tiles_c * t->tiles_w * t->blocks_n * t->rows[kh] * t->runs;
  }
  /* a block's sums must fit int32 */
  const int64_t units = t->begin[t->kh], most = NITI_ACCUMULATION_MAX / (NITI_BLOCK_IMAGES * t->positions);
  const int64_t blocks = units / most + 1;
  t->blocks = blocks > multiprocessors ? (int)blocks : units < multiprocessors ? (int)units : multiprocessors;
  const int stage = stage_of(*t), fit = (SHARED_BYTES - BARRIER_BYTES - SHARED_ALIGN) / stage;
  t->stages = fit < STAGES_MAX ? fit : STAGES_MAX;
}

static int all_tiles(const GradientTiling &t) { return t.tiles_k * t.tiles_c * t.tiles_w * t.kh; }

/* Picoseconds, as fitted to an H200: a block's positions, or what is read of operands that its second-level cache cannot hold;
 * the parts that blocks leave; the launches. */
static int64_t time_of(const GradientTiling &t, const NitiConv *c) {
  enum { CACHE = 50000000, BYTES_PER_NANOSECOND = 5000, LAUNCHES = 4400000, PART = 100000 };
  const int64_t position = t.tile_k + t.tile_c == 2 * TILE ? 100000 : t.tile_k == TILE ? 58000 : t.tile_c == TILE ? 59500 : 38500;
  const int64_t images = (int64_t)t.blocks_n * NITI_BLOCK_IMAGES, units = t.begin[t.kh];
  const int64_t operands = images * ((int64_t)c->h * c->w * c->c + (int64_t)c->oh * c->ow * c->k);
  const int64_t product = (units + t.blocks - 1) / t.blocks * t.positions * position;
  const int64_t reading = operands > CACHE ? units * stage_of(t) * 1000 / BYTES_PER_NANOSECOND : 0;
  const int64_t parts = (int64_t)PART * (t.blocks + all_tiles(t)) * t.tile_k * t.tile_c / (TILE * TILE);
  return (product > reading ? product : reading) + parts + LAUNCHES;
}

/* Of the sizes of tiles that which is likely to take the least: small ones leave smaller parts, and multiply more slowly. */
static void make_tiling_for(GradientTiling *t, const NitiConv *c, int blocks_n, int multiprocessors, int way) {
  int64_t least = INT64_MAX;
  for (int tile_k = HALF; tile_k <= (c->k > HALF ? TILE : HALF); tile_k *= 2) {
    for (int tile_c = HALF; tile_c <= (c->c > HALF ? TILE : HALF); tile_c *= 2) {
      GradientTiling other;
      tile_by(&other, c, blocks_n, multiprocessors, way, tile_k, tile_c);
      const int64_t time = time_of(other, c);
      if (time >= least) continue;
      least = time;
      *t = other;
    }
  }
}

static void make_tiling(GradientTiling *t, const NitiConv *c, int multiprocessors, int way) {
  make_tiling_for(t, c, ceil_div(c->n, NITI_BLOCK_IMAGES), multiprocessors, way);
}

static void make_map(NitiCuda *cuda, CUtensorMap *map, const NitiTensor *tensor, int positions, int channels) {
  const NitiShape s = tensor->shape;
  const uint64_t dims[4] = {(uint64_t)s.c * 2, (uint64_t)s.w, (uint64_t)s.h,
                            (uint64_t)ceil_div(s.n, NITI_BLOCK_IMAGES)}; /* 16 images are two elements of 8 bytes */
  const uint64_t strides[3] = {(uint64_t)s.c * 16, (uint64_t)s.w * s.c * 16, (uint64_t)s.h * s.w * s.c * 16};
  const uint32_t box[4] = {2 * (uint32_t)channels, (uint32_t)positions, 1, 1};
  memset(map, 0, sizeof *map);
  niti_wgmma_map(cuda, map, niti_cuda_blocked(tensor), 8, dims, strides, box, CU_TENSOR_MAP_SWIZZLE_NONE);
}

typedef void (*GradientKernel)(CUtensorMap, CUtensorMap, GradientTiling, int4 *parts);

static void launch(NitiCuda *cuda, const CUtensorMap &dy, const CUtensorMap &x, const GradientTiling &t) {
  static const GradientKernel kernels[2][2][2] = {
      /* 4 and 8 positions; TILE or HALF of output, of input channels */
      {{gradient<4, TILE, TILE>, gradient<4, TILE, HALF>}, {gradient<4, HALF, TILE>, gradient<4, HALF, HALF>}},
      {{gradient<8, TILE, TILE>, gradient<8, TILE, HALF>}, {gradient<8, HALF, TILE>, gradient<8, HALF, HALF>}}};
  const GradientKernel kernel = kernels[t.positions == 8][t.tile_k == HALF][t.tile_c == HALF];
  const size_t shared = BARRIER_BYTES + SHARED_ALIGN + (size_t)t.stages * stage_of(t);
  niti_cuda_note(
      cuda,
      niti_cuda_runtime.cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
      "wgmma gradient: shared memory");
  niti_launch(cuda, "wgmma gradient", kernel, dim3((unsigned)t.blocks), dim3(THREADS), shared, 1, dy, x, t,
              (int4 *)cuda->scratch);
}

/* As many groups as leave each a few parts. */
template <typename T>
static void launch_sum(NitiCuda *cuda, const GradientTiling &t, T *out) {
  const unsigned tiles = (unsigned)all_tiles(t), vectors = (unsigned)part_of(t) / 4;
  const unsigned each = (unsigned)t.blocks / tiles, groups = each >= 16 ? GROUPS_MAX : each >= 6 ? 4 : 1;
  void (*const kernel)(GradientTiling, const int4 *, T *) = groups == GROUPS_MAX ? add_parts<T, GROUPS_MAX>
                                                            : groups == 4        ? add_parts<T, 4>
                                                                                 : add_parts<T, 1>;
  NITI_LAUNCH(cuda, kernel, tiles * (vectors / (SUM_THREADS / groups)), SUM_THREADS, 0, t, (const int4 *)cuda->scratch, out);
}

extern "C" void niti_wgmma_gradient(NitiCuda *cuda, NitiGradient *gradient, const NitiTensor *dy, const NitiTensor *x,
                                    const NitiConv *c, int way) {
  GradientTiling t;
  CUtensorMap dy_map, x_map;
  make_tiling(&t, c, cuda->multiprocessors, way);
  make_map(cuda, &dy_map, dy, t.positions, t.tile_k);
  make_map(cuda, &x_map, x, t.x_positions, t.tile_c);
  launch(cuda, dy_map, x_map, t);
  if (gradient->bits == 32)
    launch_sum(cuda, t, (int32_t *)gradient->data);
  else
    launch_sum(cuda, t, (int64_t *)gradient->data);
}

extern "C" int niti_wgmma_gradient_ways(NitiWay ways[NITI_WAYS_MAX], int count) {
  count = niti_cuda_add_way(ways, count, 1, "wgmma by 4");
  return niti_cuda_add_way(ways, count, 2, "wgmma by 8");
}

/* Enough for smaller batches too, which may have larger tiles. */
extern "C" size_t niti_wgmma_gradient_workspace(const NitiConv *c, int multiprocessors) {
  size_t most = 0;
  for (int way = 0; way <= 2; ++way) {
    for (int blocks_n = ceil_div(c->n, NITI_BLOCK_IMAGES); blocks_n > 0; --blocks_n) {
      GradientTiling t;
      make_tiling_for(&t, c, blocks_n, multiprocessors, way);
      const size_t bytes = (size_t)(t.blocks + all_tiles(t)) * (size_t)part_of(t) * sizeof(int32_t);
      most = bytes > most ? bytes : most;
    }
  }
  return most;
}

extern "C" void niti_wgmma_gradient_tile(const NitiConv *c, int multiprocessors, int way, int *output, int *input) {
  GradientTiling t;
  make_tiling(&t, c, multiprocessors, way);
  *output = t.tile_k;
  *input = t.tile_c;
}

extern "C" int64_t niti_wgmma_gradient_time(const NitiConv *c, int multiprocessors) {
  GradientTiling t;
  make_tiling(&t, c, multiprocessors, 0);
  return time_of(t, c);
}
