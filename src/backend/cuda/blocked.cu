/* Blocked layouts and bits: the record of those that are up to date, and what makes them from NHWC mantissas. */
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/finish.cuh"
#include "backend/cuda/tile.cuh"

/* ---- the record (host) ---- */

enum { LAYOUTS = 4096 };

typedef struct Ready {
  const int8_t *data;
  size_t image; /* elements of one */
  int32_t n;
  bool blocked; /* up to date */
  int32_t bits; /* channels of the shape whose bits are up to date; 0: none */
} Ready;

struct NitiLayouts {
  int count;
  Ready ready[LAYOUTS]; /* in no order: a network has few */
};

extern "C" NitiLayouts *niti_layouts_open(void) { return (NitiLayouts *)calloc(1, sizeof(NitiLayouts)); }

extern "C" void niti_layouts_close(NitiLayouts *layouts) { free(layouts); }

static int find(const NitiLayouts *layouts, const int8_t *data) {
  for (int i = 0; i < layouts->count; ++i) {
    if (layouts->ready[i].data == data) return i;
  }
  return -1;
}

extern "C" void niti_layouts_forget(NitiLayouts *layouts, const void *data, size_t bytes) {
  const uintptr_t first = (uintptr_t)data;
  for (int i = layouts->count - 1; i >= 0; --i) {
    const Ready *ready = &layouts->ready[i];
    const uintptr_t at = (uintptr_t)ready->data;
    if (at < first + bytes && first < at + (size_t)ready->n * ready->image) layouts->ready[i] = layouts->ready[--layouts->count];
  }
}

static void forget(NitiLayouts *layouts, int i) { layouts->ready[i] = layouts->ready[--layouts->count]; }

/* The tensor's entry; NULL: none, or of another shape. */
static Ready *entry_of(NitiLayouts *layouts, const NitiTensor *t) {
  const int i = find(layouts, t->data);
  Ready *ready = i < 0 ? NULL : &layouts->ready[i];
  return ready && ready->n == t->shape.n && ready->image == niti_shape_image(t->shape) ? ready : NULL;
}

/* The same, or an empty one; NULL where there is no room. */
static Ready *make_entry(NitiLayouts *layouts, const NitiTensor *t) {
  Ready *ready = entry_of(layouts, t);
  if (ready) return ready;
  const int i = find(layouts, t->data);
  if (i >= 0) forget(layouts, i);
  if (layouts->count == LAYOUTS) return NULL;
  ready = &layouts->ready[layouts->count++];
  *ready = Ready{t->data, niti_shape_image(t->shape), t->shape.n, false, 0};
  return ready;
}

extern "C" void niti_cuda_blocked_set(NitiCuda *cuda, const NitiTensor *t, bool written) {
  const int i = find(cuda->layouts, t->data);
  if (i >= 0) forget(cuda->layouts, i);
  Ready *ready = written ? make_entry(cuda->layouts, t) : NULL;
  if (ready) ready->blocked = true;
}

extern "C" bool niti_cuda_blocked_ready(const NitiCuda *cuda, const NitiTensor *t) {
  const Ready *ready = entry_of(cuda->layouts, t);
  return ready && ready->blocked;
}

extern "C" void niti_cuda_bits_set(NitiCuda *cuda, const NitiTensor *t) {
  Ready *ready = make_entry(cuda->layouts, t);
  if (ready) ready->bits = t->shape.c;
}

/* ---- the bits ---- */

enum { BITS_WARPS = 8 };

static __global__ void __launch_bounds__(BITS_WARPS * 32)
    bits_kernel(NitiOutput d, const int8_t *__restrict__ data, size_t items, int32_t limit, const int32_t *e_limit) {
  niti_kernel_begin();
  const uint32_t lowered = niti_lowered(limit, e_limit);
  const int blocks = (int)niti_bits_blocks(d.k);
  for (size_t i = (size_t)blockIdx.x * BITS_WARPS + threadIdx.x / 32; i < items; i += (size_t)gridDim.x * BITS_WARPS) {
    const int k0 = (int)(i % blocks) * NITI_FINISH_CHANNELS, ow = (int)(i / blocks % d.ow), oh = (int)(i / blocks / d.ow % d.oh);
    const NitiSpot s = niti_spot(d, (int)(i / blocks / d.ow / d.oh) * NITI_BLOCK_IMAGES, oh, ow, k0);
    uint32_t bits[2];
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int8_t *at = data + s.at + (row ? s.down : 0);
      bits[row] = niti_passing_bits(niti_load_if(s.row[row] && s.channels > 0, at), lowered) |
                  niti_passing_bits(niti_load_if(s.row[row] && s.channels > NITI_FINISH_RUN, at + NITI_FINISH_RUN), lowered) >> 4;
    }
    niti_bits_store(d, s, bits[0], bits[1]);
  }
}

static void make_bits(NitiCuda *cuda, const NitiTensor *t) {
  const NitiShape s = t->shape;
  const Ready *ready = entry_of(cuda->layouts, t);
  if (ready && ready->bits == s.c) return;
  const size_t items = niti_bits_items(s), most = (size_t)cuda->multiprocessors * 8;
  const size_t blocks = (items + BITS_WARPS - 1) / BITS_WARPS;
  const NitiOutput d = {s.n, s.h, s.w, s.c, NULL, NULL, niti_cuda_bits(t), NULL, NULL};
  NITI_LAUNCH(cuda, bits_kernel, (unsigned)(blocks < most ? blocks : most), BITS_WARPS * 32, 0, d, t->data, items, t->limit,
              t->exponent);
  niti_cuda_bits_set(cuda, t);
}

extern "C" void niti_cuda_bits_make(NitiCuda *cuda, const NitiTensor *t) {
  if (!t->placed) make_bits(cuda, t);
}

static __global__ void __launch_bounds__(BITS_WARPS * 32) spread_kernel(NitiOutput d, size_t items) {
  niti_kernel_begin();
  const int blocks = (int)niti_bits_blocks(d.k);
  for (size_t i = (size_t)blockIdx.x * BITS_WARPS + threadIdx.x / 32; i < items; i += (size_t)gridDim.x * BITS_WARPS) {
    const int k0 = (int)(i % blocks) * NITI_FINISH_CHANNELS, ow = (int)(i / blocks % d.ow), oh = (int)(i / blocks / d.ow % d.oh);
    const NitiSpot s = niti_spot(d, (int)(i / blocks / d.ow / d.oh) * NITI_BLOCK_IMAGES, oh, ow, k0);
    const uint2 bits = niti_mask_load(d, s);
#pragma unroll
    for (int part = 0; part < 4; ++part) { /* row part / 2, run part % 2 */
      const uint32_t own = (part / 2 ? bits.y : bits.x) << (4 * (part % 2)), ones = 0x01010101u;
      const uint4 v = make_uint4(niti_spread_signs(own) & ones, niti_spread_signs(own << 1) & ones,
                                 niti_spread_signs(own << 2) & ones, niti_spread_signs(own << 3) & ones);
      niti_store_if(s.row[part / 2] && s.channels > NITI_FINISH_RUN * (part % 2),
                    d.y + s.at + (part / 2 ? s.down : 0) + NITI_FINISH_RUN * (part % 2), v);
    }
  }
}

extern "C" void niti_cuda_bits_spread(NitiCuda *cuda, int8_t *to, const NitiTensor *t) {
  const NitiShape s = t->shape;
  const size_t items = niti_bits_items(s), most = (size_t)cuda->multiprocessors * 8;
  const size_t blocks = (items + BITS_WARPS - 1) / BITS_WARPS;
  const NitiOutput d = {s.n, s.h, s.w, s.c, to, NULL, NULL, niti_cuda_bits(t), NULL};
  NITI_LAUNCH(cuda, spread_kernel, (unsigned)(blocks < most ? blocks : most), BITS_WARPS * 32, 0, d, items);
}

/* ---- the transposition ---- */

/* Four positions of one image, 0 past its end. */
template <bool ALIGNED>
static __device__ inline uint32_t load_four(const int8_t *image, uint32_t p, uint32_t elements) {
  if (ALIGNED) return *(const uint32_t *)(image + p);
  uint32_t word = 0;
#pragma unroll
  for (uint32_t k = 0; k < 4; ++k) {
    if (p + k < elements) word |= (uint32_t)(uint8_t)image[p + k] << (8 * k);
  }
  return word;
}

template <bool ALIGNED>
static __global__ void __launch_bounds__(NITI_TILE_THREADS)
    blocked_kernel(int8_t *__restrict__ blocked, const int8_t *__restrict__ data, NitiTiles t) {
  niti_kernel_begin();
  __shared__ uint4 scratch[NITI_TILE_WARPS][NITI_BLOCKED_UNITS];
  for (uint32_t item = niti_tile_first(); item < t.items; item += niti_tile_step()) {
    const NitiTile tile = niti_tile_at<4, NITI_BLOCK_IMAGES>(t, item);
    const int8_t *image = data + tile.n * t.image;
    uint32_t words[NITI_BLOCK_IMAGES];
#pragma unroll
    for (int i = 0; i < NITI_BLOCK_IMAGES; ++i) {
      words[i] = i < tile.images ? load_four<ALIGNED>(image + (size_t)i * t.image, tile.p, t.image) : 0;
    }
    niti_tile_blocked(niti_blocked_block(blocked, tile.block, t.image), scratch[threadIdx.x / 32], words, tile.p, t.image);
  }
}

static void make_blocked(NitiCuda *cuda, const NitiTensor *t) {
  if (niti_cuda_blocked_ready(cuda, t)) return;
  const NitiTiles tiles = niti_tiles_of(t->shape, 4, NITI_BLOCK_IMAGES);
  const bool aligned = niti_words_fit(niti_shape_image(t->shape), t->data, NULL, NULL);
  void (*blocked_make)(int8_t *, const int8_t *, NitiTiles) = aligned ? blocked_kernel<true> : blocked_kernel<false>;
  NITI_LAUNCH(cuda, blocked_make, niti_tiles_grid(tiles), NITI_TILE_THREADS, 0, niti_cuda_blocked(t), t->data, tiles);
  Ready *ready = make_entry(cuda->layouts, t);
  if (ready) ready->blocked = true;
}

extern "C" void niti_cuda_blocked_make(NitiCuda *cuda, const NitiTensor *t) {
  if (!t->placed) make_blocked(cuda, t);
}

extern "C" void niti_cuda_complete(NitiBackend *backend, const NitiTensor *t) {
  NitiCuda *cuda = niti_cuda(backend);
  if (t->layouts[0]) make_blocked(cuda, t);
  if (t->layouts[1]) make_bits(cuda, t);
}

/* ---- the way back (host) ---- */

extern "C" void niti_cuda_download_elements(NitiBackend *backend, int8_t *host, const NitiTensor *t, int32_t n) {
  const size_t image = niti_shape_image(t->shape), block = image * NITI_BLOCK_IMAGES;
  int8_t *blocked = (int8_t *)malloc(block);
  memset(host, 0, image * (size_t)n);
  for (int32_t i = 0; blocked && i < n; ++i) {
    if (i % NITI_BLOCK_IMAGES == 0)
      backend->ops->download(backend, blocked, t->layouts[0] + (size_t)(i / NITI_BLOCK_IMAGES) * block, block);
    const int8_t *from = blocked + niti_blocked_slot(i % NITI_BLOCK_IMAGES);
    for (size_t p = 0; p < image; ++p) host[(size_t)i * image + p] = from[p * NITI_BLOCK_IMAGES];
  }
  if (!blocked) niti_cuda_note(niti_cuda(backend), cudaErrorMemoryAllocation, "a download");
  free(blocked);
}
