/* Convolution forward where a window holds at most 32 bytes, as a network's first layer does: one mma step per tile. The memory's
 * speed is the limit, so the input is read once for every 128 channels, the weights stay in registers and both layouts are stored
 * from registers.
 *
 * A block takes one row of output positions for 16 images: it copies the input rows that the windows meet, then each warp takes
 * every eighth position, gathers its windows' bytes as the 16 x 32 operand (mma_window.cuh), and multiplies by the weights of 128
 * channels, or 64. */
#include "backend/cuda/finish.cuh"
#include "backend/cuda/mma_first.h"
#include "backend/cuda/mma_window.cuh"

enum { IMAGES = NITI_BLOCK_IMAGES, WARPS = 8, DEPTH = 32, BLOCKS = 2 /* a multiprocessor's */, SHARED_MOST = 96 * 1024 };
enum { FILTER = DEPTH / 4 + 1 /* words of a filter in shared memory: those of neighbours in different banks */ };

struct FirstTiling {
  NitiWindowRows windows;
  int c, kh, kw, stride_h, stride_w, pad_h;
  int oh, ow, columns, blocks_k; /* columns: of a product; blocks_k: of so many channels */
  int jobs;                      /* image blocks x output rows */
};

/* COLUMNS: of the products, 128 or 64. */
template <NitiFinish FINISH, bool BIAS, int COLUMNS>
__global__ void __launch_bounds__(WARPS * 32, BLOCKS)
    first(const int8_t *__restrict__ x, const int8_t *__restrict__ w, const __grid_constant__ FirstTiling t,
          const __grid_constant__ NitiOutput d, const __grid_constant__ NitiRequantiseArgs rq, bool second) {
  niti_kernel_begin();
  enum { TILES = COLUMNS / 8 };
  NITI_DYNAMIC_SHARED(cells);
  int shift;
  if (!niti_range_begin(rq, second, &shift)) {
    __syncthreads(); /* all have read the range */
    if (threadIdx.x == 0) niti_range_end(rq, gridDim.x);
    return;
  }
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, q = lane & 3;
  const int bytes = t.kh * t.kw * t.c, run = t.kw * t.c, k0 = (int)(blockIdx.x % t.blocks_k) * COLUMNS;

  /* The eight bytes of a window that this thread gathers, and their weights for all channels. */
  int from[8];
  uint32_t b[TILES][2];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int k = 4 * q + i % 4 + i / 4 * 16;
    from[i] = niti_window_offset(t.windows, k, run, bytes);
  }
  uint32_t *const filters = (uint32_t *)(void *)(cells + niti_windows_bytes(t.windows)); /* [COLUMNS][FILTER] */
  for (int i = (int)threadIdx.x; i < COLUMNS * (DEPTH / 4); i += WARPS * 32) {
    const int channel = i / (DEPTH / 4), part = i % (DEPTH / 4);
    const int8_t *filter = w + (size_t)(k0 + channel) * bytes;
    filters[channel * FILTER + part] =
        k0 + channel < d.k ? niti_window_weights(filter, 4 * part, bytes, w + (size_t)d.k * bytes) : 0;
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < TILES; ++j) {
    const uint32_t *filter = filters + niti_finish_channel(8 * j + g) * FILTER;
    b[j][0] = filter[q];
    b[j][1] = filter[q + 4];
  }

  uint32_t largest = 0;
  for (int job = (int)(blockIdx.x / t.blocks_k); job < t.jobs; job += (int)(gridDim.x / t.blocks_k)) {
    const int oh = job % t.oh, nb = job / t.oh * IMAGES;
    __syncthreads(); /* the rows before have been read */
    niti_windows_copy<WARPS * 32>(t.windows, cells, nb, oh * t.stride_h - t.pad_h);
    __syncthreads();
    for (int ow = warp; ow < t.ow; ow += WARPS) {
      uint32_t a[4];
      niti_window_gather(a, cells + (t.windows.left + ow * t.stride_w * t.c) * NITI_WINDOW_CELL + 2 * g, from);
      int acc[COLUMNS / 2];
#pragma unroll
      for (int j = 0; j < TILES; ++j) {
        int sum[4] = {0, 0, 0, 0};
        niti_mma(sum, a[0], a[1], a[2], a[3], b[j][0], b[j][1]);
#pragma unroll
        for (int e = 0; e < 4; ++e) acc[4 * j + e] = sum[e];
      }
      const NitiSpot spot = niti_spot(d, nb, oh, ow, k0);
      if (BIAS) niti_add_bias(acc, rq.bias + d.k - spot.channels);
      bool clips = true;
      if (!second) {
        const uint32_t most = niti_largest_of(acc, spot);
        largest = most > largest ? most : largest;
        clips = __any_sync(0xffffffffu, most >> shift >= NITI_MANTISSA_MAX);
      }
      niti_finish_block<FINISH>(acc, d, rq, shift, clips, spot, make_uint2(0, 0));
    }
  }
  if (!second) niti_range_raise(rq, largest);
  __syncthreads();
  if (second && threadIdx.x == 0) niti_range_end(rq, gridDim.x);
}

enum { TIME_128 = 95, TIME_64 = 60 /* picoseconds of a row of so many columns, as measured on an H200 */ };

/* Of products, those that take less time. bits: they are to be stored, of 128 channels at once. */
static int columns_of(const NitiConv *c, bool bits) {
  const int wide = (c->k + NITI_FINISH_CHANNELS - 1) / NITI_FINISH_CHANNELS, narrow = (c->k + 63) / 64;
  return c->k > 64 && (bits || wide * TIME_128 <= narrow * TIME_64) ? NITI_FINISH_CHANNELS : 64;
}

static int64_t shared_of(const FirstTiling &t) {
  return niti_windows_bytes(t.windows) + t.columns * FILTER * (int64_t)sizeof(uint32_t);
}

/* False: the shape is not served. */
static bool make_tiling(FirstTiling *t, const NitiConv *c, bool bits) {
  *t = FirstTiling{};
  if ((int64_t)c->kh * c->kw * c->c > DEPTH || c->k % 16 != 0 || c->k < 64 || c->n < IMAGES) return false;
  if ((int64_t)c->h * c->w * c->c >= INT32_MAX || !niti_windows_fit(c)) return false;
  t->windows = niti_windows_of(c);
  t->windows.rows = c->kh;
  t->c = c->c, t->kh = c->kh, t->kw = c->kw, t->stride_h = c->stride_h, t->stride_w = c->stride_w, t->pad_h = c->pad_h;
  t->oh = c->oh, t->ow = c->ow;
  t->columns = columns_of(c, bits);
  t->blocks_k = (c->k + t->columns - 1) / t->columns;
  t->jobs = (c->n + IMAGES - 1) / IMAGES * c->oh;
  return shared_of(*t) <= SHARED_MOST;
}

bool niti_mma_first_serves(const NitiConv *c) {
  FirstTiling t;
  return make_tiling(&t, c, false);
}

/* Windows multiplied, and input rows brought to shared memory. */
int64_t niti_mma_first_time(const NitiConv *c) {
  FirstTiling t;
  if (!make_tiling(&t, c, false)) return INT64_MAX;
  const int64_t rows = (int64_t)t.jobs * IMAGES * t.blocks_k; /* of output */
  return 7000000 + rows * ((t.columns == 64 ? TIME_64 : TIME_128) * t.ow + t.kh * t.windows.pitch);
}

template <NitiFinish FINISH, bool BIAS, int COLUMNS>
static void launch(NitiCuda *cuda, const NitiTensor *x, const NitiTensor *w, const FirstTiling &t, const NitiOutput &d,
                   const NitiRequantiseArgs &rq) {
  const size_t shared = (size_t)shared_of(t);
  const int fit = BLOCKS * cuda->multiprocessors / t.blocks_k, each = fit < 1 ? 1 : fit < t.jobs ? fit : t.jobs;
  niti_cuda_note(cuda,
                 niti_cuda_runtime.cudaFuncSetAttribute((const void *)first<FINISH, BIAS, COLUMNS>,
                                                        cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
                 "mma first: shared memory");
  for (int second = 0; second < 2; ++second) {
    if (second) niti_cuda_share_range(cuda);
    NITI_LAUNCH(cuda, (first<FINISH, BIAS, COLUMNS>), (unsigned)(each * t.blocks_k), WARPS * 32, shared, x->data, w->data, t, d,
                rq, second != 0);
  }
}

/* A kernel of its own for a bias: the other has no registers left for it. */
template <NitiFinish FINISH>
static void choose(NitiCuda *cuda, const NitiTensor *x, const NitiTensor *w, const FirstTiling &t, const NitiOutput &d,
                   const NitiRequantiseArgs &rq) {
  void (*const launches[2][2])(NitiCuda *, const NitiTensor *, const NitiTensor *, const FirstTiling &, const NitiOutput &,
                               const NitiRequantiseArgs &) = {
      {launch<FINISH, false, NITI_FINISH_CHANNELS>, launch<FINISH, false, 64>},
      {launch<FINISH, true, NITI_FINISH_CHANNELS>, launch<FINISH, true, 64>},
  };
  launches[rq.bias != NULL][t.columns == 64](cuda, x, w, t, d, rq);
}

void niti_mma_first(NitiCuda *cuda, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const int32_t *bias,
                    const NitiConv *c, bool relu, const NitiRequantise *requantise) {
  FirstTiling t;
  uint2 *const bits = relu ? niti_cuda_bits_wanted(y) : NULL;
  if (!make_tiling(&t, c, bits != NULL)) return; /* niti_mma_first_serves said otherwise */
  const NitiOutput d = {c->n, c->oh, c->ow, c->k, y->data, niti_cuda_is_blocked(y) ? niti_cuda_blocked(y) : NULL,
                        bits, NULL,  NULL};
  t.windows.in = x->data;
  t.windows.end = x->data + niti_shape_count(x->shape);
  NitiRequantiseArgs rq = niti_requantise_args(cuda, requantise, y->exponent, x->exponent, w->exponent, 0, relu);
  rq.bias = bias;
  if (rq.mode != NITI_NEAREST)
    choose<NITI_FINISH_ANY>(cuda, x, w, t, d, rq);
  else if (relu)
    choose<NITI_FINISH_RELU>(cuda, x, w, t, d, rq);
  else
    choose<NITI_FINISH_SIGNED>(cuda, x, w, t, d, rq);
  niti_cuda_blocked_set(cuda, y, niti_cuda_is_blocked(y));
  if (d.bits) niti_cuda_bits_set(cuda, y);
}
