/* Twins: the record of those that are up to date, and the transposition that makes one from NHWC mantissas. */
#include <stdlib.h>

#include "backend/cuda/tile.cuh"

/* ---- the record (host) ---- */

enum { TWINS = 4096 };

typedef struct Ready {
  const int8_t *data;
  size_t image; /* elements of one */
  int32_t n;
} Ready;

struct NitiTwins {
  int count;
  Ready ready[TWINS]; /* in no order: a network has few */
};

extern "C" NitiTwins *niti_twins_open(void) { return (NitiTwins *)calloc(1, sizeof(NitiTwins)); }

extern "C" void niti_twins_close(NitiTwins *twins) { free(twins); }

static int find(const NitiTwins *twins, const int8_t *data) {
  for (int i = 0; i < twins->count; ++i) {
    if (twins->ready[i].data == data) return i;
  }
  return -1;
}

extern "C" void niti_twins_forget(NitiTwins *twins, const void *data, size_t bytes) {
  const uintptr_t first = (uintptr_t)data;
  for (int i = twins->count - 1; i >= 0; --i) {
    const Ready *ready = &twins->ready[i];
    const uintptr_t at = (uintptr_t)ready->data;
    if (at < first + bytes && first < at + (size_t)ready->n * ready->image) twins->ready[i] = twins->ready[--twins->count];
  }
}

extern "C" void niti_cuda_twin_set(NitiCuda *cuda, const NitiTensor *t, bool written) {
  NitiTwins *twins = cuda->twins;
  int i = find(twins, t->data);
  if (!written) {
    if (i >= 0) twins->ready[i] = twins->ready[--twins->count];
    return;
  }
  if (i < 0 && twins->count == TWINS) return;
  if (i < 0) i = twins->count++;
  twins->ready[i] = Ready{t->data, niti_shape_image(t->shape), t->shape.n};
}

extern "C" bool niti_cuda_twin_ready(const NitiCuda *cuda, const NitiTensor *t) {
  const int i = find(cuda->twins, t->data);
  if (i < 0) return false;
  const Ready *ready = &cuda->twins->ready[i];
  return ready->n == t->shape.n && ready->image == niti_shape_image(t->shape);
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
    twin_kernel(int8_t *__restrict__ twin, const int8_t *__restrict__ data, NitiTiles t) {
  niti_kernel_begin();
  __shared__ uint4 scratch[NITI_TILE_WARPS][NITI_TWIN_UNITS];
  for (uint32_t item = niti_tile_first(); item < t.items; item += niti_tile_step()) {
    const NitiTile tile = niti_tile_at<4, NITI_TWIN_IMAGES>(t, item);
    const int8_t *image = data + tile.n * t.image;
    uint32_t words[NITI_TWIN_IMAGES];
#pragma unroll
    for (int i = 0; i < NITI_TWIN_IMAGES; ++i) {
      words[i] = i < tile.images ? load_four<ALIGNED>(image + (size_t)i * t.image, tile.p, t.image) : 0;
    }
    niti_tile_twin(niti_twin_block(twin, tile.block, t.image), scratch[threadIdx.x / 32], words, tile.p, t.image);
  }
}

extern "C" void niti_cuda_twin_make(NitiCuda *cuda, const NitiTensor *t) {
  if (niti_cuda_twin_ready(cuda, t)) return;
  const NitiTiles tiles = niti_tiles_of(t->shape, 4, NITI_TWIN_IMAGES);
  const bool aligned = niti_words_fit(niti_shape_image(t->shape), t->data, NULL, NULL);
  void (*twin_make)(int8_t *, const int8_t *, NitiTiles) = aligned ? twin_kernel<true> : twin_kernel<false>;
  NITI_LAUNCH(cuda, twin_make, niti_tiles_grid(tiles), NITI_TILE_THREADS, 0, niti_cuda_twin(t), t->data, tiles);
  niti_cuda_twin_set(cuda, t, true);
}
