/* Windows of few channels: they begin anywhere, so the input rows that they meet lie in shared memory with the 16 images of a
 * block innermost, and what a thread needs of its two images is one load of two bytes. */
#ifndef NITI_BACKEND_CUDA_MMA_WINDOW_CUH
#define NITI_BACKEND_CUDA_MMA_WINDOW_CUH

#include "backend/cuda/divisor.cuh"
#include "backend/cuda/tile.cuh"
#include "base/window.h"

/* By value to a kernel. A cell is a byte of a row, of 16 images: images g and g + 8 are bytes 2 g and 2 g + 1 of it. */
struct NitiWindowRows {
  const int8_t *in, *end; /* the input, [n][h][row] */
  int32_t n, h, row;      /* row: bytes */
  int32_t lead, pitch;    /* cells of a row before the input's, the last of which are padding; and in all, a multiple of 4 */
  int32_t rows;           /* that are copied at once */
  int32_t left;           /* cells from the first on to the first window */
  NitiDivisor words;      /* 4 * pitch / 4: a row's, of four images each */
};

enum { NITI_WINDOW_CELL = NITI_BLOCK_IMAGES };

/* Whether a row of the input with its padding, and so whatever its windows meet, may fit in shared memory. */
static inline bool niti_windows_fit(const NitiConv *c) {
  const int64_t width = c->w + 2 * (int64_t)c->pad_w;
  return c->c < 1 << 14 && width < 1 << 14 && width * c->c < 1 << 14;
}

/* Everything but the input, where they fit. */
static inline NitiWindowRows niti_windows_of(const NitiConv *c) {
  NitiWindowRows w = {};
  const int32_t padding = c->pad_w * c->c;
  w.n = c->n, w.h = c->h, w.row = c->w * c->c;
  w.lead = (padding + 3) / 4 * 4;
  w.left = w.lead - padding;
  const int32_t last = w.left + ((c->ow - 1) * c->stride_w + c->kw) * c->c, all = w.lead + w.row > last ? w.lead + w.row : last;
  w.pitch = (all + 3) / 4 * 4;
  w.words = niti_divisor((uint32_t)w.pitch);
  return w;
}

NITI_INLINE int64_t niti_windows_bytes(const NitiWindowRows &w) { return (int64_t)w.rows * w.pitch * NITI_WINDOW_CELL; }

#ifdef __CUDACC__

/* Four bytes of memory that may begin anywhere, out of aligned words, of which none begins at `end` or later. */
__device__ inline uint32_t niti_window_word(const int8_t *from, const int8_t *end) {
  const uint32_t past = (uint32_t)(uintptr_t)from & 3;
  const int8_t *at = from - past;
  const uint32_t low = __ldg((const uint32_t *)at), high = past > 0 && at + 4 < end ? __ldg((const uint32_t *)(at + 4)) : 0;
  return (uint32_t)(((uint64_t)high << 32 | low) >> (8 * past));
}

/* Bytes k .. k + 3 of a filter of so many bytes, and zeros after them. end: of all filters. */
__device__ inline uint32_t niti_window_weights(const int8_t *filter, int k, int bytes, const int8_t *end) {
  const int left = bytes - k;
  if (left <= 0) return 0;
  const uint32_t word = niti_window_word(filter + k, end);
  return left < 4 ? word & ((1u << (8 * left)) - 1) : word;
}

/* Rows y, y + 1, .. of images image .. image + 15 to shared memory; zeros where there is none. All threads call it. */
template <int THREADS>
__device__ inline void niti_windows_copy(const NitiWindowRows &w, uint8_t *cells, int image, int y) {
#pragma unroll 2
  for (uint32_t i = threadIdx.x; i < (uint32_t)w.rows * w.words.divisor; i += THREADS) {
    const uint32_t row = niti_divide(w.words, i), rest = i - row * w.words.divisor, four = rest % 4; /* of the images */
    const int cell = (int)(rest - four), at = cell - w.lead, left = w.row - at;
    const bool inside = (uint32_t)(y + (int)row) < (uint32_t)w.h && at >= 0 && left > 0;
    uint32_t words[4], out[4];
#pragma unroll
    for (uint32_t k = 0; k < 4; ++k) {
      const int n = image + (int)(2 * four + k / 2 + 8 * (k % 2));
      words[k] = inside && n < w.n ? niti_window_word(w.in + ((int64_t)n * w.h + y + (int)row) * w.row + at, w.end) : 0;
    }
    niti_transpose4(out, words[0], words[1], words[2], words[3]);
    uint32_t *to = (uint32_t *)(void *)(cells + ((size_t)row * (uint32_t)w.pitch + (uint32_t)cell) * NITI_WINDOW_CELL) + four;
#pragma unroll
    for (int e = 0; e < 4; ++e) to[e * (NITI_WINDOW_CELL / 4)] = e < left ? out[e] : 0;
  }
}

/* Where byte k of a window is, in bytes from its first cell on; past its end, where weights are 0, anywhere. run: bytes of a row
 * of it. */
__device__ inline int niti_window_offset(const NitiWindowRows &w, int k, int run, int bytes) {
  return k < bytes ? (k / run * w.pitch + k % run) * NITI_WINDOW_CELL : 0;
}

/* A thread's operands of a product: bytes 4 q .. 4 q + 3 and 16 further of the windows of images g and g + 8. at: the first
 * cell's bytes of these images; from: of these bytes. */
__device__ inline void niti_window_gather(uint32_t (&a)[4], const uint8_t *at, const int (&from)[8]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    uint32_t pairs[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) pairs[e] = *(const uint16_t *)(const void *)(at + from[4 * half + e]);
    const uint32_t low = __byte_perm(pairs[0], pairs[1], 0x5140), high = __byte_perm(pairs[2], pairs[3], 0x5140);
    a[2 * half] = __byte_perm(low, high, 0x5410);
    a[2 * half + 1] = __byte_perm(low, high, 0x7632);
  }
}

#endif
#endif
