/* Convolution forward, and backward to the input, for Hopper: which shapes, and how they are cut into tiles. */
#include <string.h>

#include "backend/cuda/pack.h"
#include "backend/cuda/wgmma_conv.cuh"
#include "base/window.h"

enum {
  TERMS_MAX = 100000,    /* of a sum: leaves room for rounding within int32 */
  RESIDENT_BOXES = 3,    /* a block's, at least */
  STREAMED_BOXES = 2,    /* a pair's */
  FULL_LEAST = 60,       /* percent of the chunks of input channels that are in use */
  OUT_LEAST = 16,        /* output channels */
  ZEROS_CHUNKS = 8,      /* of one tap's weights, which always leave room for boxes */
  LOOSE_ROUND = 5000000, /* picoseconds, backward to channels that are no multiple of 16, of each round but the first */
  BLOCKS_K_MAX = NITI_RANGE_MARKS / (CLUSTER * PAIRS * PAIR_WARPS), /* so that every block has its marks */
};

static int log2_floor(int v) {
  int log = 0;
  while (v >> (log + 1)) ++log;
  return log;
}

static int ceil_div(int a, int b) { return (a + b - 1) / b; }

/* ---- what a direction sums: a window over the input for each phase of the output ---- */

struct ConvWindow {
  int n, oh, ow, in, out, terms; /* positions of the largest phase; terms: of the longest sum */
  int step_h, step_w, phases;
  bool zeros; /* what is between the rows and columns of the only phase is 0 */
  ConvPhase phase[PHASES_MAX];
  NitiTaps y[PHASES_MAX], x[PHASES_MAX]; /* a phase's taps of the weights; count 0: none, and the phase's one is of zeros */
};

static ConvWindow forward_window(const NitiConv *c) {
  ConvWindow w = {c->n, c->oh, c->ow, c->c, c->k, c->kh * c->kw * c->c, 1, 1, 1, false, {}, {}, {}};
  w.phase[0] = ConvPhase{c->kh, c->kw, c->pad_h, c->pad_w, 0, 0, 0};
  w.y[0] = NitiTaps{c->kh, 0, -1};
  w.x[0] = NitiTaps{c->kw, 0, -1};
  return w;
}

/* Whether taps reach the first of every stride-th row (or column) alone. */
static bool reaches_first_alone(int length, int kernel, int stride, int pad) {
  for (int phase = 0; phase < stride && phase < length; ++phase) {
    if ((niti_stride_phase(phase, length, kernel, stride, pad).taps > 0) != (phase == 0)) return false;
  }
  return true;
}

/* False: the strides have too many phases. */
static bool backward_window(ConvWindow *w, const NitiConv *c) {
  size_t packed = 0;
  memset(w, 0, sizeof *w);
  w->n = c->n, w->in = c->k, w->out = c->c;
  w->step_h = c->stride_h, w->step_w = c->stride_w;
  w->oh = ceil_div(c->h, c->stride_h);
  w->ow = ceil_div(c->w, c->stride_w);
  w->terms = c->kh * c->kw * c->k;
  if (c->stride_h * c->stride_w > PHASES_MAX) return false;
  w->zeros = c->stride_h * c->stride_w > 1 && c->kh * c->kw == 1 && niti_wgmma_chunks(c->k) <= ZEROS_CHUNKS &&
             reaches_first_alone(c->h, c->kh, c->stride_h, c->pad_h) && reaches_first_alone(c->w, c->kw, c->stride_w, c->pad_w);
  for (int row = 0; row < (w->zeros ? 1 : c->stride_h) && row < c->h; ++row) {
    for (int column = 0; column < (w->zeros ? 1 : c->stride_w) && column < c->w; ++column, ++w->phases) {
      const NitiStridePhase y = niti_stride_phase(row, c->h, c->kh, c->stride_h, c->pad_h);
      const NitiStridePhase x = niti_stride_phase(column, c->w, c->kw, c->stride_w, c->pad_w);
      const bool any = y.taps > 0 && x.taps > 0;
      ConvPhase *phase = &w->phase[w->phases];
      *phase = ConvPhase{any ? y.taps : 1, any ? x.taps : 1, any ? -y.offset : 0, any ? -x.offset : 0, row, column, 0};
      phase->packed = (uint32_t)packed;
      packed += niti_wgmma_packed_bytes(w->out, w->in, phase->kh * phase->kw);
      w->y[w->phases] = NitiTaps{any ? y.taps : 0, y.last, c->stride_h};
      w->x[w->phases] = NitiTaps{any ? x.taps : 0, x.last, c->stride_w};
    }
  }
  return packed <= UINT32_MAX;
}

static bool window_of(ConvWindow *w, const NitiConv *c, NitiDirection direction) {
  if (direction == NITI_BACKWARD) return backward_window(w, c);
  *w = forward_window(c);
  return c->stride_h == 1 && c->stride_w == 1;
}

static size_t packed_bytes(const ConvWindow &w) {
  size_t bytes = 0;
  for (int i = 0; i < w.phases; ++i) bytes += niti_wgmma_packed_bytes(w.out, w.in, w.phase[i].kh * w.phase[i].kw);
  return bytes;
}

/* ---- tiles ---- */

/* Taps of the phase with the most of them. */
static int most_taps(const ConvTiling &t) {
  int most = 0;
  for (int i = 0; i < t.phases; ++i) most = t.phase[i].kh * t.phase[i].kw > most ? t.phase[i].kh * t.phase[i].kw : most;
  return most;
}

/* Whether each window row is a stage of weights. */
static bool rows_are_stages(const ConvTiling &t) { return t.phases == 1 && t.phase[0].kw == TAPS_MAX; }

/* Shared memory with all weights, if they leave room for enough boxes. */
static bool lay_resident(ConvTiling *t) {
  const int taps = most_taps(*t);
  const int64_t weights = (int64_t)t->chunks * taps * TILE_BYTES;
  const int64_t left = SHARED_BYTES - BARRIER_BYTES - SHARED_ALIGN - weights, boxes = left / t->box_stride;
  t->taps = rows_are_stages(*t) ? TAPS_MAX : 1;
  t->stages = t->chunks * taps / t->taps;
  t->boxes = boxes < BOXES_MAX ? (int)boxes : BOXES_MAX;
  t->resident = boxes >= RESIDENT_BOXES && t->stages <= STAGES_MAX;
  return t->resident;
}

static bool lay_streamed(ConvTiling *t) {
  const int64_t left = SHARED_BYTES - BARRIER_BYTES - SHARED_ALIGN - t->pairs * STREAMED_BOXES * (int64_t)t->box_stride;
  t->boxes = STREAMED_BOXES;
  t->taps = rows_are_stages(*t) && left >= 3 * TAPS_MAX * TILE_BYTES ? TAPS_MAX : 1;
  t->stages = left / (t->taps * TILE_BYTES) < STAGES_MAX ? (int)(left / (t->taps * TILE_BYTES)) : STAGES_MAX;
  return left >= 3 * TILE_BYTES;
}

static bool lay(ConvTiling *t, bool streamed) { return (!streamed && lay_resident(t)) || lay_streamed(t); }

/* How many blocks a launch can have of those that share 128 channels. */
static int blocks_of(const ConvTiling &t, int multiprocessors) {
  const int fit = multiprocessors / CLUSTER / t.blocks_k;
  return CLUSTER * (fit > 0 ? fit : 1);
}

/* How many tiles a pair does, where all clusters for 128 channels take part. */
static int rounds_of(const ConvTiling &t, int multiprocessors) {
  return ceil_div(t.tiles, t.pairs * blocks_of(t, multiprocessors));
}

/* Whether no pair needs another to have rounded before it goes on: with a ring of weights shorter than a chunk the second pair
 * has none until the first has let them pass, which it does when it has rounded. */
static bool rounds_last(const ConvTiling &t) { return t.resident || t.pairs == 1 || most_taps(t) / t.taps < t.stages; }

/* Tiles of so many columns. streamed: even if all weights would fit. multiprocessors: 0 where they do not matter. False: there is
 * no room for them. */
static bool lay_tiles(ConvTiling *t, const ConvWindow &w, int columns, bool streamed, int multiprocessors) {
  int kh = 0, kw = 0;
  memset(t, 0, sizeof *t);
  t->n = w.n, t->oh = w.oh, t->ow = w.ow, t->k = w.out;
  t->step_h = w.step_h, t->step_w = w.step_w, t->phases = w.phases, t->zeros = w.zeros;
  memcpy(t->phase, w.phase, sizeof t->phase);
  for (int i = 0; i < w.phases; ++i) {
    kh = w.phase[i].kh > kh ? w.phase[i].kh : kh;
    kw = w.phase[i].kw > kw ? w.phase[i].kw : kw;
  }
  t->chunks = niti_wgmma_chunks(w.in);
  t->log_tn = log2_floor(64 / columns);
  t->across = w.oh == 1 && w.ow == 1;
  const int tile_n = (t->across ? BLOCKS : 1) << t->log_tn, tile_h = t->across ? 1 : BLOCKS;
  t->blocks_h = ceil_div(w.oh, tile_h);
  t->blocks_w = ceil_div(w.ow, columns);
  t->by_h = niti_divisor((uint32_t)t->blocks_h);
  t->by_w = niti_divisor((uint32_t)t->blocks_w);
  t->blocks_c = ceil_div(w.out, BN);
  t->blocks_k = w.phases * t->blocks_c;
  t->tiles = ceil_div(w.n, tile_n) * t->blocks_h * t->blocks_w;
  t->pairs = PAIRS;
  t->box_w = columns + kw - 1;
  t->box_n = tile_n;
  const int box_h = tile_h + kh - 1;
  if (t->box_w > 256 || box_h > 256) return false;
  const int64_t box = (int64_t)t->box_w * t->box_n * box_h * CHUNK;
  if (box > SHARED_BYTES) return false;
  t->box_bytes = (uint32_t)box;
  t->box_stride = (t->box_bytes + SHARED_ALIGN - 1) / SHARED_ALIGN * SHARED_ALIGN;
  if (lay(t, streamed) && t->tiles > blocks_of(*t, multiprocessors)) return true;
  t->pairs = 1; /* which needs less, and where there is no room for two is better than none */
  return lay(t, streamed);
}

/* Picoseconds of its rounds, which wait for boxes, multiply and round, longer where they store by two bytes or one: as of an
 * H200.
 */
static int64_t rounds_time(const ConvTiling &t, int multiprocessors) {
  const int64_t work = 207000 * (int64_t)t.chunks * most_taps(t) + 42 * t.chunks * (int64_t)t.box_bytes;
  const int64_t rounding = 2980000 + (t.k % 4 == 0 ? 0 : t.k % 2 == 0 ? 5000000 : 10000000);
  return rounds_of(t, multiprocessors) * (rounding + work * t.pairs / PAIRS) / (t.k > BN / 2 ? 1 : 2);
}

/* What it takes more backward, where random bytes are drawn for runs that begin anywhere. */
static int64_t loose_time(const ConvTiling &t, int multiprocessors) {
  if (t.k % 16 == 0) return 0;
  return (rounds_of(t, multiprocessors) - 1) * (int64_t)LOOSE_ROUND / (t.k > BN / 2 ? 1 : 2);
}

/* Of tiles four, two or one columns wide those that are expected to take the least time, the wider if two do: narrow ones leave
 * less of themselves outside small images, but copy more for each position. False: the shape is not served. */
static bool make_tiling(ConvTiling *t, const ConvWindow &w, bool streamed, int multiprocessors) {
  const int most = w.ow >= 4 ? 4 : w.ow >= 2 ? 2 : 1;
  bool found = false;
  if (w.in % 16 != 0 || w.phases * ceil_div(w.out, BN) > BLOCKS_K_MAX || w.terms > TERMS_MAX) return false;
  if (w.in * 100 < niti_wgmma_chunks(w.in) * CHUNK * FULL_LEAST || w.out < OUT_LEAST) return false;
  for (int columns = most; columns > 0; columns /= 2) {
    ConvTiling other;
    if (!lay_tiles(&other, w, columns, streamed, multiprocessors)) continue;
    if (found && rounds_time(other, multiprocessors) >= rounds_time(*t, multiprocessors)) continue;
    *t = other;
    found = true;
  }
  return found;
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

static NitiFinish loose_finish(const NitiRequantiseArgs &rq) {
  if (rq.mode == NITI_STOCHASTIC_BYTE && rq.clip <= NITI_WIDE_CLIP) return NITI_FINISH_LOOSE_BYTE;
  return rq.mode == NITI_NEAREST ? NITI_FINISH_LOOSE : NITI_FINISH_LOOSE_ANY;
}

void niti_wgmma_conv_launch(NitiCuda *cuda, const ConvKernel (*variants)[2], const ConvLaunch &launch, unsigned blocks) {
  ConvLaunch l = launch;
  const bool loose = l.output.k % 16 != 0 || l.output.loose;
  const NitiFinish finish = loose ? loose_finish(l.requantise) : niti_finish_of(l.requantise, l.output);
  const ConvKernel kernel = variants[finish][l.tiling.taps == TAPS_MAX];
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

/* y [n][.][.][out] = windows of x [n][h][w][in]. */
static void run(NitiCuda *cuda, NitiTensor *y, const NitiTensor *x, const int8_t *packed, const NitiTensor *mask,
                const ConvWindow &w, const NitiRequantiseArgs &rq, bool stream) {
  const NitiShape in = x->shape, out = y->shape;
  const bool loose = out.c % 16 != 0 || (mask && mask->placed && !mask->layouts[1]); /* a smaller batch of an mma's */
  ConvTiling t;
  if (!make_tiling(&t, w, stream && !w.zeros, cuda->multiprocessors)) return; /* serves_*: never */
  const int rounds = rounds_of(t, cuda->multiprocessors);
  const unsigned blocks = (unsigned)(ceil_div(t.tiles, CLUSTER * t.pairs * rounds) * t.blocks_k * CLUSTER);
  t.once = rounds == 1 && rounds_last(t);
  if (mask && !loose) niti_cuda_bits_make(cuda, mask);
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
                        rq.relu && !loose ? niti_cuda_bits_wanted(y) : NULL,
                        mask && !loose ? niti_cuda_bits(mask) : NULL,
                        mask && loose ? mask->data : NULL};
  l.packed = packed;
  l.requantise = rq;
  if (t.resident)
    niti_wgmma_conv_resident(cuda, l, blocks);
  else
    niti_wgmma_conv_streamed(cuda, l, blocks);
  niti_cuda_blocked_set(cuda, y, niti_cuda_is_blocked(y));
  if (l.output.bits) niti_cuda_bits_set(cuda, y);
}

static bool serves(const NitiConv *c, NitiDirection direction) {
  ConvWindow w;
  ConvTiling t;
  return window_of(&w, c, direction) && make_tiling(&t, w, false, 0);
}

static bool serves_forward(const NitiConv *c) { return serves(c, NITI_FORWARD); }

static bool serves_backward(const NitiConv *c) { return serves(c, NITI_BACKWARD); }

enum { STREAMED = 1 }; /* a way */

static int ways(NitiWay *ways, int count, const NitiConv *c, NitiDirection direction) {
  ConvWindow w;
  ConvTiling t;
  if (direction == NITI_GRADIENT) return niti_wgmma_gradient_ways(ways, count);
  const bool fits = window_of(&w, c, direction) && !w.zeros && make_tiling(&t, w, true, 0);
  return fits ? niti_cuda_add_way(ways, count, STREAMED, "wgmma streamed") : count;
}

/* Fitted to an H200 when each convolution packed its own weights, which it still charges for. */
static int choose(const NitiCuda *cuda, const NitiConv *c, NitiDirection direction, int64_t *picoseconds) {
  ConvWindow w;
  ConvTiling t;
  *picoseconds = INT64_MAX;
  if (direction == NITI_GRADIENT)
    *picoseconds = niti_wgmma_gradient_time(c, cuda->multiprocessors);
  else if (window_of(&w, c, direction) && make_tiling(&t, w, false, cuda->multiprocessors))
    *picoseconds = 7250000 + (int64_t)packed_bytes(w) * 131 / 100 + rounds_time(t, cuda->multiprocessors) +
                   (direction == NITI_BACKWARD ? loose_time(t, cuda->multiprocessors) : 0);
  return 0;
}

static size_t workspace(const NitiCuda *cuda, const NitiConv *c, NitiDirection direction) {
  ConvWindow w;
  if (direction == NITI_GRADIENT)
    return niti_wgmma_serves_gradient(c) ? niti_wgmma_gradient_workspace(c, cuda->multiprocessors) : 0;
  return serves(c, direction) && window_of(&w, c, direction) ? packed_bytes(w) : 0;
}

static void pack(NitiPacks *packs, int8_t *to, const int8_t *w, int own, const NitiConv *c, NitiDirection direction, int way) {
  const NitiPackKind kind = direction == NITI_FORWARD ? NITI_PACK_TILES : NITI_PACK_TURNED_TILES;
  ConvWindow window;
  (void)way;
  if (!window_of(&window, c, direction)) return; /* serves_*: never */
  for (int i = 0; i < window.phases; ++i) {
    const bool any = window.y[i].count > 0;
    const NitiTaps one = {1, 0, 0}, y = any ? window.y[i] : one, x = any ? window.x[i] : one;
    const NitiPack p = {to + window.phase[i].packed, w, 0, kind, c->k, any ? own : 0, c->c, c->kh, c->kw, y, x, 0, 0};
    niti_packs_add(packs, &p);
  }
}

/* Too low a prediction is corrected on the way, so it costs less than too high a one. */
static NitiRequantiseArgs leaning(NitiRequantiseArgs rq) {
  rq.share = NITI_PREDICTION_LOW;
  return rq;
}

static void forward(NitiCuda *cuda, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const NitiCudaBias *bias,
                    const int8_t *packed, const NitiConv *c, bool relu, const NitiRequantise *rq, int way) {
  NitiRequantiseArgs requantise = leaning(niti_requantise_args(cuda, rq, y->exponent, x->exponent, w->exponent, 0, relu));
  if (bias->of && bias->centred)
    requantise.means = (const int64_t *)(const void *)bias->of->data;
  else
    requantise.bias = niti_cuda_bias_prepare(cuda, bias, x, w);
  run(cuda, y, x, packed, NULL, forward_window(c), requantise, way == STREAMED);
}

static void backward(NitiCuda *cuda, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w, const NitiTensor *mask,
                     const int8_t *packed, const NitiConv *c, const NitiRequantise *rq, int way) {
  ConvWindow window;
  if (!backward_window(&window, c)) return; /* serves_backward: never */
  NitiRequantiseArgs requantise = leaning(niti_requantise_args(cuda, rq, dx->exponent, dy->exponent, w->exponent, 0, false));
  niti_requantise_limit(&requantise, mask);
  run(cuda, dx, dy, packed, mask, window, requantise, way == STREAMED);
}

extern "C" const NitiCudaConv niti_cuda_conv_wgmma = {
    "wgmma", serves_forward, serves_backward, niti_wgmma_serves_gradient, workspace, pack, ways,
    choose,  forward,        backward,        niti_wgmma_gradient};
