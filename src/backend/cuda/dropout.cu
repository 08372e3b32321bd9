/* Dropout at rate 1/2: a mask drawn anew from its indices, forward and backward. */
#include "backend/cuda/tile.cuh"

typedef struct Dropout {
  int8_t *y; /* may be x */
  const int8_t *x;
  int8_t *blocked; /* of y, or NULL */
  int32_t *e_y;
  const int32_t *e_x;
  const NitiClock *clock;
  uint32_t layer;
  bool shared;
  NitiTiles tiles;
} Dropout;

/* 0xff in the bytes of elements index .. index + V - 1 that stay. */
template <int V>
static __device__ inline uint32_t keep(const Dropout &d, uint64_t index) {
  const uint4 r = niti_word_draw<V>(d.clock->seed, d.clock->step, NITI_DRAW_DROPOUT, d.layer, index);
  return ((r.x >> 31) | (r.y >> 31) << 8 | (r.z >> 31) << 16 | (r.w >> 31) << 24) * 0xffu;
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
      words[i] &= d.shared ? all : keep<V>(d, at);
      niti_word_store<V>(d.y + at, words[i]);
    }
    if (V == 4 && d.blocked) {
      niti_tile_blocked(niti_blocked_block(d.blocked, tile.block, t.image), scratch[threadIdx.x / 32], words, tile.p, t.image);
    }
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *d.e_y = *d.e_x + 1;
}

extern "C" void niti_cuda_dropout(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, uint32_t layer, bool shared) {
  NitiCuda *cuda = niti_cuda(backend);
  const int V = niti_words_fit(niti_shape_image(x->shape), y->data, x->data, NULL) ? 4 : 1;
  const Dropout args = {y->data,     x->data,     niti_blocked_of(y, V),
                        y->exponent, x->exponent, cuda->clock,
                        layer,       shared,      niti_tiles_of(x->shape, V, NITI_BLOCK_IMAGES)};
  void (*dropout)(Dropout) = V == 4 ? dropout_kernel<4> : dropout_kernel<1>;
  NITI_LAUNCH(cuda, dropout, niti_tiles_grid(args.tiles), NITI_TILE_THREADS, 0, args);
  niti_cuda_blocked_set(cuda, y, args.blocked != NULL);
}
