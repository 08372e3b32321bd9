/* Convolution forward where a window holds at most 32 bytes, as a network's first layer does: one mma step per tile. The memory's
 * speed is the limit, so the input is read once, the weights stay in registers and both layouts are stored from registers.
 *
 * A block takes one row of output positions for 16 images: it copies the input rows that the windows meet, then each warp takes
 * every eighth position, gathers its windows' bytes as the 16 x 32 operand, and multiplies by 32 x 128 weights. */
#include "backend/cuda/finish.cuh"
#include "backend/cuda/mma_first.h"

enum { IMAGES = 16, WARPS = 8, DEPTH = 32, TILES = NITI_FINISH_CHANNELS / 8, SHARED_MOST = 96 * 1024 };

struct FirstTiling {
  int n, h, w, c, kh, kw, stride_h, stride_w, pad_h, pad_w;
  int oh, ow, blocks_k;
  int row_bytes, image_pitch, row_pitch; /* in shared memory: an input row with its padding; between images, between rows */
  int jobs;                              /* image blocks x output rows */
};

template <NitiFinish FINISH, bool BIAS>
__global__ void __launch_bounds__(WARPS * 32, 2)
    first(const int8_t *__restrict__ x, const int8_t *__restrict__ w, const __grid_constant__ FirstTiling t,
          const __grid_constant__ NitiOutput d, const __grid_constant__ NitiRequantiseArgs rq, bool second) {
  niti_kernel_begin();
  NITI_DYNAMIC_SHARED(rows_shared); /* int8 [kh][16][row] */
  int8_t *const rows = (int8_t *)rows_shared;
  int shift;
  if (!niti_range_begin(rq, second, &shift)) {
    __syncthreads(); /* all have read the range */
    if (threadIdx.x == 0) niti_range_end(rq, gridDim.x);
    return;
  }
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, q = lane & 3;
  const int bytes = t.kh * t.kw * t.c, run = t.kw * t.c, k0 = (int)(blockIdx.x % t.blocks_k) * NITI_FINISH_CHANNELS;

  /* The eight bytes of a window that this thread gathers for each row, and their weights for all 128 channels. */
  int from[8];
  uint32_t b[TILES][2];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int k = 4 * q + i % 4 + i / 4 * 16;
    from[i] = k < bytes ? k / run * t.row_pitch + k % run : 0; /* the others' weights are 0 */
  }
#pragma unroll
  for (int j = 0; j < TILES; ++j) {
    const int channel = k0 + niti_finish_channel(8 * j + g);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t word = 0;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int k = 4 * q + e + half * 16;
        if (k < bytes && channel < d.k) word |= (uint32_t)(uint8_t)w[(size_t)channel * bytes + k] << 8 * e;
      }
      b[j][half] = word;
    }
  }

  uint32_t largest = 0;
  for (int job = (int)(blockIdx.x / t.blocks_k); job < t.jobs; job += (int)(gridDim.x / t.blocks_k)) {
    const int oh = job % t.oh, nb = job / t.oh * IMAGES;
    const int in = t.w * t.c, left = t.pad_w * t.c;
    __syncthreads();
    for (int i = warp; i < t.kh * IMAGES; i += WARPS) {
      const int kh = i / IMAGES, n = nb + i % IMAGES, ih = oh * t.stride_h - t.pad_h + kh;
      int8_t *to = rows + kh * t.row_pitch + i % IMAGES * t.image_pitch;
      const bool inside = n < t.n && ih >= 0 && ih < t.h;
      const int8_t *at = x + ((size_t)(inside ? n : 0) * t.h + (inside ? ih : 0)) * in;
      if (in % 4 == 0) {
        for (int v = lane; v < in / 4; v += 32) {
          const uint32_t word = inside ? ((const uint32_t *)(const void *)at)[v] : 0;
          int8_t *out = to + left + 4 * v;
          out[0] = (int8_t)word, out[1] = (int8_t)(word >> 8), out[2] = (int8_t)(word >> 16), out[3] = (int8_t)(word >> 24);
        }
      } else {
        for (int v = lane; v < in; v += 32) to[left + v] = inside ? at[v] : (int8_t)0;
      }
      for (int v = lane; v < left; v += 32) to[v] = to[left + in + v] = 0;
    }
    __syncthreads();
    for (int ow = warp; ow < t.ow; ow += WARPS) {
      const int8_t *window = rows + g * t.image_pitch + ow * t.stride_w * t.c;
      uint32_t a[4] = {0, 0, 0, 0};
#pragma unroll
      for (int i = 0; i < 8; ++i) { /* a: rows g and g + 8 of columns 4 q .. 4 q + 3, then of those 16 further */
        a[i / 4 * 2] |= (uint32_t)(uint8_t)window[from[i]] << 8 * (i % 4);
        a[i / 4 * 2 + 1] |= (uint32_t)(uint8_t)window[8 * t.image_pitch + from[i]] << 8 * (i % 4);
      }
      int acc[64];
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

/* False: the shape is not served. */
static bool make_tiling(FirstTiling *t, const NitiConv *c) {
  *t = FirstTiling{c->n,  c->h, c->w, c->c, c->kh, c->kw, c->stride_h, c->stride_w, c->pad_h, c->pad_w, c->oh,
                   c->ow, 0,    0,    0,    0,     0};
  t->row_bytes = (c->w + 2 * c->pad_w) * c->c;
  t->image_pitch = (t->row_bytes + 3) / 4 * 4;
  if (t->image_pitch / 4 % 2 == 0) t->image_pitch += 4; /* an odd number of words: images are in different banks */
  t->row_pitch = IMAGES * t->image_pitch;
  t->blocks_k = (c->k + NITI_FINISH_CHANNELS - 1) / NITI_FINISH_CHANNELS;
  t->jobs = (c->n + IMAGES - 1) / IMAGES * c->oh;
  return (int64_t)c->kh * c->kw * c->c <= DEPTH && c->k % 16 == 0 && c->k >= 64 && c->n >= IMAGES &&
         (int64_t)c->kh * IMAGES * ((c->w + 2 * c->pad_w) * (int64_t)c->c + 8) <= SHARED_MOST;
}

bool niti_mma_first_serves(const NitiConv *c) {
  FirstTiling t;
  return make_tiling(&t, c);
}

/* Windows multiplied, and input rows brought to shared memory byte by byte. */
int64_t niti_mma_first_time(const NitiConv *c) {
  FirstTiling t;
  if (!make_tiling(&t, c)) return INT64_MAX;
  const int64_t rows = (int64_t)t.jobs * IMAGES * t.blocks_k; /* of output */
  return 5000000 + rows * (77 * t.ow + 3 * t.kh * t.row_bytes);
}

template <NitiFinish FINISH, bool BIAS>
static void launch(NitiCuda *cuda, const NitiTensor *x, const NitiTensor *w, const FirstTiling &t, const NitiOutput &d,
                   const NitiRequantiseArgs &rq) {
  const size_t shared = (size_t)t.kh * t.row_pitch;
  const int fit = 2 * cuda->multiprocessors / t.blocks_k, each = fit < 1 ? 1 : fit < t.jobs ? fit : t.jobs;
  niti_cuda_note(cuda,
                 niti_cuda_runtime.cudaFuncSetAttribute((const void *)first<FINISH, BIAS>,
                                                        cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
                 "mma first: shared memory");
  for (int second = 0; second < 2; ++second) {
    if (second) niti_cuda_share_range(cuda);
    NITI_LAUNCH(cuda, (first<FINISH, BIAS>), (unsigned)(each * t.blocks_k), WARPS * 32, shared, x->data, w->data, t, d, rq,
                second != 0);
  }
}

/* A kernel of its own for a bias: the other has no registers left for it. */
template <NitiFinish FINISH>
static void choose(NitiCuda *cuda, const NitiTensor *x, const NitiTensor *w, const FirstTiling &t, const NitiOutput &d,
                   const NitiRequantiseArgs &rq) {
  if (rq.bias)
    launch<FINISH, true>(cuda, x, w, t, d, rq);
  else
    launch<FINISH, false>(cuda, x, w, t, d, rq);
}

void niti_mma_first(NitiCuda *cuda, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const int32_t *bias,
                    const NitiConv *c, bool relu, const NitiRequantise *requantise) {
  FirstTiling t;
  if (!make_tiling(&t, c)) return; /* niti_mma_first_serves said otherwise */
  const NitiOutput d = {c->n,
                        c->oh,
                        c->ow,
                        c->k,
                        y->data,
                        niti_cuda_is_blocked(y) ? niti_cuda_blocked(y) : NULL,
                        relu ? niti_cuda_bits_wanted(y) : NULL,
                        NULL,
                        NULL};
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
