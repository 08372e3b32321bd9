/* Convolution forward, and backward to the input, for Hopper: which shapes, and how they are cut into tiles. */
#include <string.h>

#include "backend/cuda/pack.h"
#include "backend/cuda/wgmma_conv.cuh"

enum {
  TERMS_MAX = 100000,                                               /* of a sum: leaves room for rounding within int32 */
  RESIDENT_BOXES = 3,                                               /* a block's, at least */
  STREAMED_BOXES = 2,                                               /* a pair's */
  BLOCKS_K_MAX = NITI_RANGE_MARKS / (CLUSTER * PAIRS * PAIR_WARPS), /* so that every block has its marks */
};

static int log2_floor(int v) {
  int log = 0;
  while (v >> (log + 1)) ++log;
  return log;
}

static int ceil_div(int a, int b) { return (a + b - 1) / b; }

/* Shared memory with all weights, if they leave room for enough boxes. */
static bool lay_resident(ConvTiling *t) {
  const int64_t weights = (int64_t)t->chunks * t->kh * t->kw * TILE_BYTES;
  const int64_t left = SHARED_BYTES - BARRIER_BYTES - SHARED_ALIGN - weights, boxes = left / t->box_stride;
  t->taps = t->kw == TAPS_MAX ? TAPS_MAX : 1;
  t->stages = t->chunks * t->kh * t->kw / t->taps;
  t->boxes = boxes < BOXES_MAX ? (int)boxes : BOXES_MAX;
  t->resident = boxes >= RESIDENT_BOXES && t->stages <= STAGES_MAX;
  return t->resident;
}

static bool lay_streamed(ConvTiling *t) {
  const int left = SHARED_BYTES - BARRIER_BYTES - SHARED_ALIGN - t->pairs * STREAMED_BOXES * (int)t->box_stride;
  t->boxes = STREAMED_BOXES;
  t->taps = t->kw == TAPS_MAX && left >= 3 * TAPS_MAX * TILE_BYTES ? TAPS_MAX : 1;
  t->stages = left / (t->taps * TILE_BYTES) < STAGES_MAX ? left / (t->taps * TILE_BYTES) : STAGES_MAX;
  return left >= 3 * TILE_BYTES;
}

static bool lay(ConvTiling *t, bool streamed) { return (!streamed && lay_resident(t)) || lay_streamed(t); }

/* How many blocks a launch can have of those that share 128 channels. */
static int blocks_of(const ConvTiling &t, int multiprocessors) {
  const int fit = multiprocessors / CLUSTER / t.blocks_k;
  return CLUSTER * (fit > 0 ? fit : 1);
}

/* streamed: even if all weights would fit. multiprocessors: 0 where they do not matter. False: the shape is not served. */
static bool make_tiling(ConvTiling *t, int n, int oh, int ow, int in, int out, int kh, int kw, int pad_h, int pad_w,
                        bool streamed, int multiprocessors) {
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
  t->pairs = PAIRS;
  t->box_w = columns + kw - 1;
  t->box_n = tile_n;
  const int box_h = tile_h + kh - 1;
  if (t->box_w > 256 || box_h > 256) return false;
  t->box_bytes = (uint32_t)(t->box_w * t->box_n * box_h * CHUNK);
  t->box_stride = (t->box_bytes + SHARED_ALIGN - 1) / SHARED_ALIGN * SHARED_ALIGN;
  if (in % CHUNK != 0 || out % 16 != 0 || out < 64 || t->blocks_k > BLOCKS_K_MAX || (int64_t)kh * kw * in > TERMS_MAX)
    return false;
  if (!lay(t, streamed)) return false; /* whatever the number of images */
  if (t->tiles > blocks_of(*t, multiprocessors)) return true;
  t->pairs = 1; /* which needs less */
  return lay(t, streamed);
}

size_t niti_wgmma_conv_shared(const ConvTiling &t) {
  return BARRIER_BYTES + SHARED_ALIGN + (size_t)(t.resident ? 1 : t.pairs) * t.boxes * t.box_stride +
         (size_t)t.stages * t.taps * TILE_BYTES;
}

/* How many blocks can run at once. */
static unsigned blocks_at_once(NitiCuda *cuda, ConvKernel kernel, size_t shared) {
  cudaLaunchAttribute attribute = {};
  cudaLaunchConfig_t config = {};
  int clusters = 0;
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = CLUSTER;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  config.gridDim = dim3(CLUSTER);
  config.blockDim = dim3(THREADS);
  config.dynamicSmemBytes = shared;
  config.attrs = &attribute;
  config.numAttrs = 1;
  niti_cuda_note(cuda, niti_cuda_runtime.cudaOccupancyMaxActiveClusters(&clusters, (const void *)kernel, &config),
                 "wgmma conv: clusters at once");
  return (unsigned)(clusters * CLUSTER);
}

void niti_wgmma_conv_launch(NitiCuda *cuda, const ConvKernel (*variants)[2], const ConvLaunch &launch, unsigned blocks) {
  ConvLaunch l = launch;
  const ConvKernel kernel = variants[niti_finish_of(l.requantise, l.output)][l.tiling.taps == TAPS_MAX];
  const size_t shared = niti_wgmma_conv_shared(l.tiling);
  niti_cuda_note(
      cuda,
      niti_cuda_runtime.cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
      "wgmma conv: shared memory");
  l.tiling.meets = blocks <= niti_meeting_most(cuda) && blocks <= blocks_at_once(cuda, kernel, shared);
  l.tiling.once = l.tiling.once && l.tiling.meets;
  for (int second = 0; second < (l.tiling.once ? 1 : 2); ++second) {
    if (second) niti_cuda_share_range(cuda);
    niti_launch(cuda, "wgmma conv", kernel, dim3(blocks), dim3(THREADS), shared, CLUSTER, l.map, l.tiling, l.output, l.packed,
                l.requantise, second != 0);
  }
}

/* How many tiles a pair does, where all clusters for 128 channels take part. */
static int rounds_of(const ConvTiling &t, int multiprocessors) {
  return ceil_div(t.tiles, t.pairs * blocks_of(t, multiprocessors));
}

/* y [n][oh][ow][out] = window of x [n][h][w][in]. */
static void run(NitiCuda *cuda, NitiTensor *y, const NitiTensor *x, const int8_t *packed, const NitiTensor *mask, int pad_h,
                int pad_w, int kh, int kw, const NitiRequantiseArgs &rq, bool stream) {
  const NitiShape in = x->shape, out = y->shape;
  ConvTiling t;
  if (!make_tiling(&t, out.n, out.h, out.w, in.c, out.c, kh, kw, pad_h, pad_w, stream, cuda->multiprocessors))
    return; /* serves_*: never */
  const int rounds = rounds_of(t, cuda->multiprocessors);
  const unsigned blocks = (unsigned)(ceil_div(t.tiles, CLUSTER * t.pairs * rounds) * t.blocks_k * CLUSTER);
  t.once = rounds == 1;
  if (mask) niti_cuda_bits_make(cuda, mask);
  const uint64_t dims[4] = {(uint64_t)in.c, (uint64_t)in.n, (uint64_t)in.w, (uint64_t)in.h};
  const uint64_t strides[3] = {(uint64_t)in.h * in.w * in.c, (uint64_t)in.c, (uint64_t)in.w * in.c};
  const uint32_t box[4] = {CHUNK, (uint32_t)t.box_n, (uint32_t)t.box_w, t.box_bytes / (uint32_t)(CHUNK * t.box_n * t.box_w)};
  ConvLaunch l;
  memset(&l.map, 0, sizeof l.map);
  niti_wgmma_map(cuda, &l.map, x->data, 1, dims, strides, box, CU_TENSOR_MAP_SWIZZLE_64B);
  l.tiling = t;
  l.output = NitiOutput{out.n,
                        out.h,
                        out.w,
                        out.c,
                        y->uses == NITI_USE_GRADIENT ? NULL : y->data,
                        niti_cuda_is_blocked(y) ? niti_cuda_blocked(y) : NULL,
                        rq.relu ? niti_cuda_bits_wanted(y) : NULL,
                        mask ? niti_cuda_bits(mask) : NULL};
  l.packed = packed;
  l.requantise = rq;
  if (t.resident)
    niti_wgmma_conv_resident(cuda, l, blocks);
  else
    niti_wgmma_conv_streamed(cuda, l, blocks);
  niti_cuda_blocked_set(cuda, y, niti_cuda_is_blocked(y));
  if (l.output.bits) niti_cuda_bits_set(cuda, y);
}

static bool serves_forward(const NitiConv *c) {
  ConvTiling t;
  return c->stride_h == 1 && c->stride_w == 1 &&
         make_tiling(&t, c->n, c->oh, c->ow, c->c, c->k, c->kh, c->kw, c->pad_h, c->pad_w, false, 0);
}

static bool serves_backward(const NitiConv *c) {
  ConvTiling t;
  return c->stride_h == 1 && c->stride_w == 1 && c->pad_h < c->kh && c->pad_w < c->kw &&
         make_tiling(&t, c->n, c->h, c->w, c->k, c->c, c->kh, c->kw, c->kh - 1 - c->pad_h, c->kw - 1 - c->pad_w, false, 0);
}

enum { STREAMED = 1 }; /* a way */

static int ways(NitiWay *ways, int count, const NitiConv *c, NitiDirection direction) {
  const bool ahead = direction == NITI_FORWARD;
  const int pad_h = ahead ? c->pad_h : c->kh - 1 - c->pad_h, pad_w = ahead ? c->pad_w : c->kw - 1 - c->pad_w;
  ConvTiling t;
  if (direction == NITI_GRADIENT) return niti_wgmma_gradient_ways(ways, count);
  const bool fits = make_tiling(&t, c->n, ahead ? c->oh : c->h, ahead ? c->ow : c->w, ahead ? c->c : c->k, ahead ? c->k : c->c,
                                c->kh, c->kw, pad_h, pad_w, true, 0);
  return fits ? niti_cuda_add_way(ways, count, STREAMED, "wgmma streamed") : count;
}

/* Forward: each round waits for boxes, multiplies and rounds. Fitted to an H200 when each convolution packed its own weights,
 * which it still charges for. Backward is not compared. */
static int choose(const NitiCuda *cuda, const NitiConv *c, NitiDirection direction, int64_t *picoseconds) {
  ConvTiling t;
  *picoseconds = INT64_MAX;
  if (direction == NITI_GRADIENT) *picoseconds = niti_wgmma_gradient_time(c, cuda->multiprocessors);
  if (direction != NITI_FORWARD ||
      !make_tiling(&t, c->n, c->oh, c->ow, c->c, c->k, c->kh, c->kw, c->pad_h, c->pad_w, false, cuda->multiprocessors))
    return 0;
  const int64_t packed = (int64_t)niti_wgmma_packed_bytes(c->k, c->c, c->kh * c->kw), stages = (int64_t)t.chunks * t.kh * t.kw;
  const int64_t rounds = rounds_of(t, cuda->multiprocessors), work = 207000 * stages + 42 * t.chunks * (int64_t)t.box_bytes;
  *picoseconds = 7250000 + packed * 131 / 100 + rounds * (2980000 + work * t.pairs / PAIRS) / (c->k > BN / 2 ? 1 : 2);
  return 0;
}

static size_t workspace(const NitiCuda *cuda, const NitiConv *c, NitiDirection direction) {
  if (direction == NITI_GRADIENT)
    return niti_wgmma_serves_gradient(c) ? niti_wgmma_gradient_workspace(c, cuda->multiprocessors) : 0;
  if (direction == NITI_BACKWARD) return serves_backward(c) ? niti_wgmma_packed_bytes(c->c, c->k, c->kh * c->kw) : 0;
  return serves_forward(c) ? niti_wgmma_packed_bytes(c->k, c->c, c->kh * c->kw) : 0;
}

static void pack(NitiPacks *packs, int8_t *to, const int8_t *w, int own, const NitiConv *c, NitiDirection direction, int way) {
  const NitiTaps y = {c->kh, 0, -1}, x = {c->kw, 0, -1}, last_y = {c->kh, c->kh - 1, 1}, last_x = {c->kw, c->kw - 1, 1};
  const bool ahead = direction == NITI_FORWARD;
  const NitiPack p = {to,
                      w,
                      0,
                      ahead ? NITI_PACK_TILES : NITI_PACK_TURNED_TILES,
                      c->k,
                      own,
                      c->c,
                      c->kh,
                      c->kw,
                      ahead ? y : last_y,
                      ahead ? x : last_x,
                      0,
                      0};
  (void)way;
  niti_packs_add(packs, &p);
}

/* Too low a prediction is corrected on the way, so it costs less than too high a one. */
static NitiRequantiseArgs leaning(NitiRequantiseArgs rq) {
  rq.share = NITI_PREDICTION_LOW;
  return rq;
}

static void forward(NitiCuda *cuda, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const int32_t *bias,
                    const int8_t *packed, const NitiConv *c, bool relu, const NitiRequantise *rq, int way) {
  NitiRequantiseArgs requantise = leaning(niti_requantise_args(cuda, rq, y->exponent, x->exponent, w->exponent, 0, relu));
  requantise.bias = bias;
  run(cuda, y, x, packed, NULL, c->pad_h, c->pad_w, c->kh, c->kw, requantise, way == STREAMED);
}

static void backward(NitiCuda *cuda, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w, const NitiTensor *mask,
                     const int8_t *packed, const NitiConv *c, const NitiRequantise *rq, int way) {
  run(cuda, dx, dy, packed, mask, c->kh - 1 - c->pad_h, c->kw - 1 - c->pad_w, c->kh, c->kw,
      leaning(niti_requantise_args(cuda, rq, dx->exponent, dy->exponent, w->exponent, 0, false)), way == STREAMED);
}

extern "C" const NitiCudaConv niti_cuda_conv_wgmma = {
    "wgmma", serves_forward, serves_backward, niti_wgmma_serves_gradient, workspace, pack, ways,
    choose,  forward,        backward,        niti_wgmma_gradient};
