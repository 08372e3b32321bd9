/* Dropout: a mask drawn anew from its indices, forward and backward. */
#include "backend/cuda/tile.cuh"
#include "base/dropout.h"

typedef struct Dropout {
  int8_t *y; /* may be x */
  const int8_t *x;
  int8_t *blocked; /* of y, or NULL */
  int32_t *e_y;
  const int32_t *e_x;
  const NitiClock *clock;
  uint32_t layer;
  bool shared;
  NitiDropoutScale scale;
  NitiTiles tiles;
  uint64_t first; /* the index in the whole batch of the first element */
} Dropout;

/* 0xff in the bytes of elements index .. index + V - 1 that stay. */
template <int V>
static __device__ inline uint32_t keep(const Dropout &d, uint64_t index) {
  const uint4 r = niti_word_draw<V>(d.clock->seed, d.clock->step, NITI_DRAW_DROPOUT, d.layer, index);
  const uint32_t least = d.scale.threshold;
  return (uint32_t)(r.x >= least) * 0xffu | (uint32_t)(r.y >= least) * 0xff00u | (uint32_t)(r.z >= least) * 0xff0000u |
         (uint32_t)(r.w >= least) * 0xff000000u;
}

static __device__ inline uint32_t scaled(uint32_t word, int32_t factor) {
  uint32_t out = 0;
#pragma unroll
  for (int k = 0; k < 4; ++k) out |= (uint32_t)(uint8_t)niti_dropout_scaled((int8_t)(word >> (8 * k)), factor) << (8 * k);
  return out;
}

template <int V>
static __global__ void __launch_bounds__(NITI_TILE_THREADS) dropout_kernel(Dropout d) {
  niti_kernel_begin();
  __shared__ uint4 scratch[NITI_TILE_WARPS][NITI_BLOCKED_UNITS];
  const NitiTiles &t = d.tiles;
  for (uint32_t item = niti_tile_first(); item < t.items; item += niti_tile_step()) {
    const NitiTile tile = niti_tile_at<V, NITI_BLOCK_IMAGES>(t, item);
    uint32_t words[NITI_BLOCK_IMAGES];
#pragma unroll
    for (int i = 0; i < NITI_BLOCK_IMAGES; ++i) {
      words[i] = i < tile.images ? niti_word_load<V>(d.x + tile.at + (size_t)i * t.image) : 0;
    }
    const uint32_t all = d.shared ? keep<V>(d, tile.p) : 0;
#pragma unroll
    for (int i = 0; i < NITI_BLOCK_IMAGES; ++i) {
      const size_t at = tile.at + (size_t)i * t.image;
      if (i >= tile.images) continue;
      words[i] &= d.shared ? all : keep<V>(d, d.first + at);
      if (d.scale.factor != NITI_DROPOUT_WHOLE) words[i] = scaled(words[i], d.scale.factor);
      niti_word_store<V>(d.y + at, words[i]);
    }
    if (V == 4 && d.blocked) {
      niti_tile_blocked(niti_blocked_block(d.blocked, tile.block, t.image), scratch[threadIdx.x / 32], words, tile.p, t.image);
    }
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *d.e_y = *d.e_x + d.scale.exponent;
}

extern "C" void niti_cuda_dropout(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, uint32_t layer,
                                  const NitiDropout *dropout) {
  NitiCuda *cuda = niti_cuda(backend);
  const int V = niti_words_fit(niti_shape_image(x->shape), y->data, x->data, NULL) ? 4 : 1;
  const Dropout args = {y->data,
                        x->data,
                        niti_blocked_of(y, V),
                        y->exponent,
                        x->exponent,
                        cuda->clock,
                        layer,
                        dropout->shared,
                        niti_dropout_scale(dropout->rate),
                        niti_tiles_of(x->shape, V, NITI_BLOCK_IMAGES),
                        niti_cuda_first(cuda, niti_shape_image(x->shape))};
  void (*dropout_map)(Dropout) = V == 4 ? dropout_kernel<4> : dropout_kernel<1>;
  NITI_LAUNCH(cuda, dropout_map, niti_tiles_grid(args.tiles), NITI_TILE_THREADS, 0, args);
  niti_cuda_blocked_set(cuda, y, args.blocked != NULL);
}
