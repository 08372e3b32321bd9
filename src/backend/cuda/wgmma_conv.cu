/* Convolution forward, and backward to the input, for Hopper: implicit GEMM over boxes of NHWC with wgmma.
 *
 * A tile is 128 output positions times 128 output channels: a box of images x columns x rows, images innermost. In shared memory
 * a window's cell then lies whole 8-row groups away, so that one copied box with its halo serves every tap. Zeros outside the
 * image come from the copy engine. Stride is 1; backward is forward over the errors with the weights turned round.
 *
 * A block has two pairs of warpgroups, each pair with tiles and boxes of its own, all with the same 128 output channels. The
 * packed weights go by in a stream that repeats: a slot brings one chunk of input channels, the next slot the next chunk. A pair
 * multiplies for `chunks` slots, beginning with whichever chunk it meets (a sum may begin anywhere), then rounds and stores
 * during one slot that passes it by; the other pair is half a turn off and has the tensor cores to itself meanwhile. Warps of a
 * fifth warpgroup keep the copies ahead of them; two neighbouring blocks go through the same stream, of which each copies half to
 * both. */
#include <string.h>

#include "backend/cuda/finish.cuh"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/wgmma.h"

enum {
  BN = NITI_WGMMA_CHANNELS,
  CHUNK = NITI_WGMMA_CHUNK,
  TILE_BYTES = BN * CHUNK, /* of packed weights: one tap, one chunk */
  CLUSTER = 2,             /* blocks that share their weights' copies */
  PAIRS = 2,
  CONSUMERS = PAIRS * 256,
  THREADS = CONSUMERS + 128, /* and a warpgroup of which one warp copies weights, one each pair's boxes */
  BLOCKS = 2,                /* of 64 positions in a tile, a warpgroup each */
  BOXES = 2,                 /* a pair's ring */
  STAGES_MAX = 16,
  TAPS_MAX = 3, /* neighbours in a window row that a stage of weights holds */
  BARRIER_BYTES = 2 * 8 * (STAGES_MAX + PAIRS * BOXES),
  SHARED_ALIGN = 1024,
  SHARED_BYTES = 227 * 1024
};

struct ConvTiling {
  int n, oh, ow, k;                 /* output shape */
  int kh, kw, pad_h, pad_w;         /* of the stride-1 window over the input */
  int chunks;                       /* of input channels */
  int log_tn;                       /* a 64-row block is 2^log_tn images x 64 >> log_tn columns */
  int across;                       /* blocks of a tile lie across images (1x1 images) rather than down the rows */
  int blocks_h, blocks_w, blocks_k; /* tiles along each */
  int tiles;                        /* of positions */
  int box_w, box_n;                 /* of the copied box, with halo */
  uint32_t box_bytes, box_stride;   /* of a box in shared memory: copied, rounded up */
  int taps, stages;                 /* taps in a stage of weights; stages of their ring */
};

struct TilePlace {
  int n, h, w; /* past the last tile: n = t.n, all zeros and nothing stored */
};

__device__ inline TilePlace place_of(const ConvTiling &t, int tile) {
  TilePlace p;
  int at = tile;
  p.w = at % t.blocks_w * (64 >> t.log_tn);
  at /= t.blocks_w;
  p.h = at % t.blocks_h * (t.across ? 1 : BLOCKS);
  at /= t.blocks_h;
  p.n = tile < t.tiles ? at * ((t.across ? BLOCKS : 1) << t.log_tn) : t.n;
  return p;
}

struct Ring {
  uint32_t stage, parity;
  __device__ inline void next(uint32_t stages) {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
  __device__ inline void skip(uint32_t count, uint32_t stages) {
    for (stage += count; stage >= stages; stage -= stages) parity ^= 1;
  }
};

/* A stage of weights, to both blocks that copy into it. */
__device__ inline void give_back(uint32_t barrier, uint32_t rank) {
  niti_barrier_arrive(barrier);
  niti_barrier_arrive_at(barrier, rank ^ 1);
}

template <NitiFinish FINISH, int TAPS>
__global__ void __launch_bounds__(THREADS, 1)
    conv(const __grid_constant__ CUtensorMap map, const __grid_constant__ ConvTiling t, const __grid_constant__ NitiOutput d,
         const int8_t *__restrict__ packed, const __grid_constant__ NitiRequantiseArgs rq, bool second) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ uint8_t raw[];
  niti_kernel_announce();
  const uint32_t barriers = niti_shared_address(raw);
  const uint32_t boxes = (barriers + BARRIER_BYTES + SHARED_ALIGN - 1) / SHARED_ALIGN * SHARED_ALIGN;
  const uint32_t weights = boxes + PAIRS * BOXES * t.box_stride;
  const uint32_t box_full = barriers, box_free = box_full + 8 * PAIRS * BOXES, weight_full = box_free + 8 * PAIRS * BOXES,
                 weight_free = weight_full + 8 * STAGES_MAX;
  constexpr uint32_t stage_bytes = TAPS * TILE_BYTES, part_bytes = stage_bytes / CLUSTER;
  const int warp = threadIdx.x >> 5, steps = t.kh * t.kw / TAPS; /* stages of a chunk */
  const uint32_t rank = niti_cluster_rank();
  /* This cluster's output channels, and its blocks' tiles: PAIRS * (begin + rank + i * step) + pair. */
  const int k0 = (int)(blockIdx.x / CLUSTER % t.blocks_k) * BN, begin = (int)(blockIdx.x / CLUSTER / t.blocks_k) * CLUSTER,
            step = (int)(gridDim.x / t.blocks_k);
  const int tiles = ((t.tiles + PAIRS - 1) / PAIRS - begin + step - 1) / step; /* of each pair; at least one */
  const int late = (t.chunks + 1) / 2;                                         /* slots until the second pair's first turn */
  /* Whether a pair may step over a slot unseen: only where the ring is longer, or it could take an earlier round for this one. */
  const bool passes = steps < t.stages;

  if (threadIdx.x == 0) {
    for (int i = 0; i < PAIRS * BOXES; ++i) niti_barrier_init(box_full + 8 * i, 1), niti_barrier_init(box_free + 8 * i, 8);
    for (int i = 0; i < t.stages; ++i)
      niti_barrier_init(weight_full + 8 * i, 1), niti_barrier_init(weight_free + 8 * i, CLUSTER * CONSUMERS / 32);
    niti_barrier_publish();
  }
  __syncthreads();
  niti_cluster_sync();
  niti_kernel_wait();
  int shift;
  if (!niti_range_begin(rq, second, &shift)) {
    if (threadIdx.x == 0) niti_range_end(rq, gridDim.x);
    return;
  }

  if (threadIdx.x >= CONSUMERS) {
    niti_registers_lower<24>();
    if (threadIdx.x % 32 != 0) {
    } else if (warp == CONSUMERS / 32) { /* the weights */
      const int8_t *first = packed + (size_t)(k0 / BN) * t.chunks * steps * stage_bytes + rank * part_bytes;
      Ring ring = {0, 0};
      const int turns = tiles * (t.chunks + 1);
      int chunk = 0, turn[PAIRS] = {0, 0}; /* a pair's slot within its turn */
      for (int slot = 0; slot < turns + late - (passes ? 1 : 0); ++slot) {
        uint32_t idle = 0; /* warps that this slot passes by: their share is given back for them */
        for (int p = 0; p < PAIRS; ++p) {
          idle += slot >= turns + p * late || (turn[p] == t.chunks && passes) ? CLUSTER * 8 : 0;
          if (slot >= p * late && ++turn[p] > t.chunks) turn[p] = 0;
        }
        const int8_t *from = first + (size_t)chunk * steps * stage_bytes;
        for (int i = 0; i < steps; ++i, from += stage_bytes, ring.next(t.stages)) {
          niti_barrier_wait(weight_free + 8 * ring.stage, ring.parity ^ 1);
          if (idle > 0) niti_barrier_arrive(weight_free + 8 * ring.stage, idle);
          niti_barrier_expect(weight_full + 8 * ring.stage, stage_bytes);
          niti_copy_run_to(weights + ring.stage * stage_bytes + rank * part_bytes, from, part_bytes, weight_full + 8 * ring.stage,
                           (1 << CLUSTER) - 1);
        }
        if (++chunk == t.chunks) chunk = 0;
      }
    } else if (warp <= CONSUMERS / 32 + PAIRS) { /* a pair's boxes */
      const int pair = warp - CONSUMERS / 32 - 1;
      niti_prefetch_map(&map);
      Ring ring = {0, 0};
      int chunk = pair * late % t.chunks;
      for (int i = 0; i < tiles; ++i) {
        const TilePlace p = place_of(t, (begin + (int)rank + i * step) * PAIRS + pair);
        for (int c = 0; c < t.chunks; ++c, ring.next(BOXES)) {
          const uint32_t slot = pair * BOXES + ring.stage;
          niti_barrier_wait(box_free + 8 * slot, ring.parity ^ 1);
          niti_barrier_expect(box_full + 8 * slot, t.box_bytes);
          niti_copy_box(boxes + slot * t.box_stride, &map, box_full + 8 * slot, chunk * CHUNK, p.n, p.w - t.pad_w, p.h - t.pad_h);
          if (++chunk == t.chunks) chunk = 0;
        }
        if (++chunk == t.chunks) chunk = 0; /* the slot that passes by */
      }
    }
  } else {
    niti_registers_raise<112>();
    const int pair = warp / 8, block = warp / 4 % BLOCKS;
    const bool leader = (threadIdx.x & 31) == 0;
    const uint32_t block_stride = (uint32_t)(t.across ? 64 : t.box_w * t.box_n) * CHUNK;
    const uint64_t box_descriptor =
        niti_descriptor(boxes + pair * BOXES * t.box_stride + block * block_stride, NITI_SWIZZLE_64, 8 * CHUNK, 16);
    const uint64_t weight_descriptor = niti_descriptor(weights, NITI_SWIZZLE_64, 8 * CHUNK, 16);
    const uint32_t cell = (uint32_t)(t.box_n * CHUNK) >> 4, row_gap = (uint32_t)(t.box_w - t.kw) * cell; /* between taps, rows */
    Ring box = {0, 0}, weight = {0, 0};
    uint32_t largest = 0;
    auto let_pass = [&](int count) { /* stages that are for the other pair alone */
                                     for (int i = 0; i < count; ++i, weight.next(t.stages)) {
                                       niti_barrier_wait(weight_full + 8 * weight.stage, weight.parity);
                                       if (leader) give_back(weight_free + 8 * weight.stage, rank);
                                     }
    };
    let_pass(pair * late * steps);
    for (int i = 0; i < tiles; ++i) {
      int acc[64];
      bool add = false;
      uint32_t last_weight = 0, last_box = 0;
      const TilePlace p = place_of(t, (begin + (int)rank + i * step) * PAIRS + pair);
      const int row = warp % 4 * 16; /* this warp's first of the block's 64 */
      auto spot_of = [&]() {
        return niti_spot(d, p.n + (t.across ? block << t.log_tn : 0) + (row & ((1 << t.log_tn) - 1)),
                         p.h + (t.across ? 0 : block), p.w + (row >> t.log_tn), k0);
      };
      if (FINISH != NITI_FINISH_RELU && d.mask) {
        const NitiSpot spot = spot_of();
#pragma unroll
        for (int r = 0; r < 4; ++r)
          niti_prefetch_if(spot.row[r / 2] && spot.channels > NITI_FINISH_RUN * (r % 2),
                           d.mask + spot.at + (r / 2 ? spot.down : 0) + NITI_FINISH_RUN * (r % 2));
      }
      for (int chunk = 0; chunk < t.chunks; ++chunk, box.next(BOXES)) {
        niti_barrier_wait(box_full + 8 * (pair * BOXES + box.stage), box.parity);
        uint64_t a = box_descriptor + (box.stage * t.box_stride >> 4);
        for (int step = 0, column = 0; step < steps; ++step, weight.next(t.stages)) {
          niti_barrier_wait(weight_full + 8 * weight.stage, weight.parity);
          const uint64_t b = weight_descriptor + (weight.stage * stage_bytes >> 4);
          niti_wgmma_fence();
#pragma unroll
          for (int tap = 0; tap < TAPS; ++tap) {
#pragma unroll
            for (int s = 0; s < CHUNK / 32; ++s) {
              niti_wgmma_64x128(acc, a + tap * cell + 2 * s, b + (tap * TILE_BYTES >> 4) + 2 * s, add);
              add = true;
            }
          }
          niti_wgmma_commit();
          if (chunk + step > 0) { /* the products before these are done: their operands may be overwritten */
            niti_wgmma_wait<1>();
            if (leader) {
              give_back(weight_free + 8 * last_weight, rank);
              if (step == 0) niti_barrier_arrive(box_free + 8 * (pair * BOXES + last_box));
            }
          }
          last_weight = weight.stage;
          column += TAPS;
          a += TAPS * cell;
          if (column == t.kw) column = 0, a += row_gap;
        }
        last_box = box.stage;
      }
      const NitiSpot spot = spot_of();
      uint32_t mask[4] = {};
      if (FINISH != NITI_FINISH_RELU && d.mask) {
#pragma unroll
        for (int r = 0; r < 4; ++r)
          mask[r] = niti_positive_bits(niti_load_if(spot.row[r / 2] && spot.channels > NITI_FINISH_RUN * (r % 2),
                                                    d.mask + spot.at + (r / 2 ? spot.down : 0) + NITI_FINISH_RUN * (r % 2)));
      }
      niti_wgmma_wait<0>();
      if (leader) {
        give_back(weight_free + 8 * last_weight, rank);
        niti_barrier_arrive(box_free + 8 * (pair * BOXES + last_box));
      }
      bool clips = true;
      if (!second) {
        const uint32_t most = niti_largest_of(acc, spot);
        largest = most > largest ? most : largest;
        clips = __any_sync(0xffffffffu, most >> shift >= NITI_MANTISSA_MAX);
      }
      niti_finish_block<FINISH>(acc, d, rq, shift, clips, spot, mask);
      if (passes)
        weight.skip(steps, t.stages);
      else
        let_pass(steps);
    }
    if (!second) niti_range_raise(rq, largest);
  }
  __syncwarp();
  niti_cluster_sync(); /* no block may go while the other still copies into it or gives back */
  if (second && threadIdx.x == 0) niti_range_end(rq, gridDim.x);
#endif
}

/* ---- the host's side ---- */

enum { TERMS_MAX = 100000 }; /* of a sum: leaves room for rounding within int32 */

static int log2_floor(int v) {
  int log = 0;
  while (v >> (log + 1)) ++log;
  return log;
}

static int ceil_div(int a, int b) { return (a + b - 1) / b; }

/* False: the shape is not served. */
static bool make_tiling(ConvTiling *t, int n, int oh, int ow, int in, int out, int kh, int kw, int pad_h, int pad_w) {
  memset(t, 0, sizeof *t);
  const int columns = ow >= 4 ? 4 : ow >= 2 ? 2 : 1;
  t->n = n, t->oh = oh, t->ow = ow, t->k = out;
  t->kh = kh, t->kw = kw, t->pad_h = pad_h, t->pad_w = pad_w;
  t->chunks = in / CHUNK;
  t->log_tn = log2_floor(64 / columns);
  t->across = oh == 1 && ow == 1;
  const int tile_n = (t->across ? BLOCKS : 1) << t->log_tn, tile_h = t->across ? 1 : BLOCKS;
  t->blocks_h = ceil_div(oh, tile_h);
  t->blocks_w = ceil_div(ow, columns);
  t->blocks_k = ceil_div(out, BN);
  t->tiles = ceil_div(n, tile_n) * t->blocks_h * t->blocks_w;
  t->box_w = columns + kw - 1;
  t->box_n = tile_n;
  const int box_h = tile_h + kh - 1;
  if (t->box_w > 256 || box_h > 256) return false;
  t->box_bytes = (uint32_t)(t->box_w * t->box_n * box_h * CHUNK);
  t->box_stride = (t->box_bytes + SHARED_ALIGN - 1) / SHARED_ALIGN * SHARED_ALIGN;
  const int left = SHARED_BYTES - BARRIER_BYTES - SHARED_ALIGN - PAIRS * BOXES * (int)t->box_stride;
  t->taps = kw == TAPS_MAX && left >= 3 * TAPS_MAX * TILE_BYTES ? TAPS_MAX : 1;
  t->stages = left / (t->taps * TILE_BYTES) < STAGES_MAX ? left / (t->taps * TILE_BYTES) : STAGES_MAX;
  return left >= 3 * TILE_BYTES && in % CHUNK == 0 && out % 16 == 0 && out >= 64 && (int64_t)kh * kw * in <= TERMS_MAX;
}

template <NitiFinish FINISH, int TAPS>
static void launch(NitiCuda *cuda, const CUtensorMap &map, const ConvTiling &t, const NitiOutput &d, const int8_t *packed,
                   const NitiRequantiseArgs &rq) {
  const size_t shared =
      BARRIER_BYTES + SHARED_ALIGN + PAIRS * BOXES * (size_t)t.box_stride + (size_t)t.stages * TAPS * TILE_BYTES;
  const int fit = cuda->multiprocessors / CLUSTER / t.blocks_k, each = fit > 0 ? fit : 1; /* clusters for 128 channels */
  const int rounds = ceil_div(t.tiles, CLUSTER * PAIRS * each), needed = ceil_div(t.tiles, CLUSTER * PAIRS * rounds);
  niti_cuda_note(cuda, cudaFuncSetAttribute(conv<FINISH, TAPS>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
                 "wgmma conv: shared memory");
  for (int second = 0; second < 2; ++second) {
    niti_launch(cuda, "wgmma conv", conv<FINISH, TAPS>, dim3((unsigned)(needed * t.blocks_k * CLUSTER)), dim3(THREADS), shared,
                CLUSTER, map, t, d, packed, rq, second != 0);
  }
}

template <int TAPS>
static void launch_finish(NitiCuda *cuda, const CUtensorMap &map, const ConvTiling &t, const NitiOutput &d, const int8_t *packed,
                          const NitiRequantiseArgs &rq) {
  if (rq.mode != NITI_NEAREST)
    launch<NITI_FINISH_ANY, TAPS>(cuda, map, t, d, packed, rq);
  else if (rq.relu && !d.mask)
    launch<NITI_FINISH_RELU, TAPS>(cuda, map, t, d, packed, rq);
  else
    launch<NITI_FINISH_SIGNED, TAPS>(cuda, map, t, d, packed, rq);
}

/* y [n][oh][ow][out] = window of x [n][h][w][in]; packed weights lie in the workspace. */
static void run(NitiCuda *cuda, NitiTensor *y, const NitiTensor *x, const int8_t *w, const NitiTensor *mask, int pad_h, int pad_w,
                int kh, int kw, bool transpose, const NitiRequantiseArgs &rq) {
  const NitiShape in = x->shape, out = y->shape;
  ConvTiling t;
  if (!make_tiling(&t, out.n, out.h, out.w, in.c, out.c, kh, kw, pad_h, pad_w)) return; /* serves_*: never */
  int8_t *packed = (int8_t *)cuda->workspace;
  niti_wgmma_pack(cuda, packed, w, transpose ? in.c : out.c, kh * kw, transpose ? out.c : in.c, transpose);
  const uint64_t dims[4] = {(uint64_t)in.c, (uint64_t)in.n, (uint64_t)in.w, (uint64_t)in.h};
  const uint64_t strides[3] = {(uint64_t)in.h * in.w * in.c, (uint64_t)in.c, (uint64_t)in.w * in.c};
  const uint32_t box[4] = {CHUNK, (uint32_t)t.box_n, (uint32_t)t.box_w, t.box_bytes / (uint32_t)(CHUNK * t.box_n * t.box_w)};
  CUtensorMap map;
  memset(&map, 0, sizeof map);
  niti_wgmma_map(cuda, &map, x->data, 1, dims, strides, box, CU_TENSOR_MAP_SWIZZLE_64B);
  const NitiOutput d = {out.n,
                        out.h,
                        out.w,
                        out.c,
                        y->gradient_operand && y->gradient_only ? NULL : y->data,
                        y->gradient_operand ? niti_cuda_twin(y) : NULL,
                        mask ? mask->data : NULL};
  if (t.taps == TAPS_MAX)
    launch_finish<TAPS_MAX>(cuda, map, t, d, packed, rq);
  else
    launch_finish<1>(cuda, map, t, d, packed, rq);
  niti_cuda_twin_set(cuda, y, y->gradient_operand);
}

static bool serves_forward(const NitiConv *c) {
  ConvTiling t;
  return c->stride_h == 1 && c->stride_w == 1 &&
         make_tiling(&t, c->n, c->oh, c->ow, c->c, c->k, c->kh, c->kw, c->pad_h, c->pad_w);
}

static bool serves_backward(const NitiConv *c) {
  ConvTiling t;
  return c->stride_h == 1 && c->stride_w == 1 && c->pad_h < c->kh && c->pad_w < c->kw &&
         make_tiling(&t, c->n, c->h, c->w, c->k, c->c, c->kh, c->kw, c->kh - 1 - c->pad_h, c->kw - 1 - c->pad_w);
}

static size_t workspace(const NitiCuda *cuda, const NitiConv *c) {
  const size_t forward = serves_forward(c) ? niti_wgmma_packed_bytes(c->k, c->c, c->kh * c->kw) : 0;
  const size_t backward = serves_backward(c) ? niti_wgmma_packed_bytes(c->c, c->k, c->kh * c->kw) : 0;
  const size_t gradient = niti_wgmma_serves_gradient(c) ? niti_wgmma_gradient_workspace(c, cuda->multiprocessors) : 0;
  const size_t most = forward > backward ? forward : backward;
  return gradient > most ? gradient : most;
}

static void forward(NitiCuda *cuda, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const NitiConv *c, bool relu,
                    const NitiRequantise *rq) {
  run(cuda, y, x, w->data, NULL, c->pad_h, c->pad_w, c->kh, c->kw, false,
      niti_requantise_args(cuda, rq, y->exponent, x->exponent, w->exponent, 0, relu));
}

static void backward(NitiCuda *cuda, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w, const NitiTensor *mask,
                     const NitiConv *c, const NitiRequantise *rq) {
  run(cuda, dx, dy, w->data, mask, c->kh - 1 - c->pad_h, c->kw - 1 - c->pad_w, c->kh, c->kw, true,
      niti_requantise_args(cuda, rq, dx->exponent, dy->exponent, w->exponent, 0, false));
}

extern "C" const NitiCudaConv niti_cuda_conv_wgmma = {"wgmma",   serves_forward, serves_backward, niti_wgmma_serves_gradient,
                                                      workspace, forward,        backward,        niti_wgmma_gradient};
