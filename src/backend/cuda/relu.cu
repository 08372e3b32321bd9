/* ReLU forward and backward: what maps an element to an element and keeps the exponent. */
#include "backend/cuda/tile.cuh"
#include "base/relu.h"

enum Map { MAP_POSITIVE, MAP_MASK };

typedef struct MapArgs {
  int8_t *y; /* may be x */
  const int8_t *x, *mask;
  int8_t *blocked; /* of y, or NULL */
  int32_t *e_y;
  const int32_t *e_x, *e_out; /* e_out: of the layer's output */
  int32_t limit;              /* millionths; 0: none */
  NitiTiles tiles;
} MapArgs;

template <int V, int MAP>
static __global__ void __launch_bounds__(NITI_TILE_THREADS) map_kernel(MapArgs m) {
  niti_kernel_begin();
  __shared__ uint4 scratch[NITI_TILE_WARPS][NITI_BLOCKED_UNITS];
  const NitiTiles &t = m.tiles;
  const int32_t limit = m.limit == 0 ? NITI_RELU_UNLIMITED : niti_relu_limit(m.limit, *m.e_out);
  const uint32_t most = (uint32_t)(limit < NITI_RELU_UNLIMITED ? limit : NITI_MANTISSA_MAX) * 0x01010101u;
  for (uint32_t item = niti_tile_first(); item < t.items; item += niti_tile_step()) {
    const NitiTile tile = niti_tile_at<V, NITI_BLOCK_IMAGES>(t, item);
    uint32_t words[NITI_BLOCK_IMAGES], masks[NITI_BLOCK_IMAGES];
#pragma unroll
    for (int i = 0; i < NITI_BLOCK_IMAGES; ++i) {
      const size_t at = tile.at + (size_t)i * t.image;
      words[i] = i < tile.images ? niti_word_load<V>(m.x + at) : 0;
      if (MAP == MAP_MASK) masks[i] = i < tile.images ? niti_word_load<V>(m.mask + at) : 0;
    }
#pragma unroll
    for (int i = 0; i < NITI_BLOCK_IMAGES; ++i) {
      if (MAP == MAP_POSITIVE) words[i] = __vmins4(words[i] & niti_word_positive(words[i]), most);
      if (MAP == MAP_MASK) words[i] &= niti_word_positive(masks[i]);
      if (MAP == MAP_MASK && limit < NITI_RELU_UNLIMITED) words[i] &= __vcmpgts4(most, masks[i]);
      if (i < tile.images) niti_word_store<V>(m.y + tile.at + (size_t)i * t.image, words[i]);
    }
    if (V == 4 && m.blocked) {
      niti_tile_blocked(niti_blocked_block(m.blocked, tile.block, t.image), scratch[threadIdx.x / 32], words, tile.p, t.image);
    }
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *m.e_y = *m.e_x;
}

template <int MAP>
static void run(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, const int8_t *mask, const int32_t *e_out,
                int32_t limit) {
  NitiCuda *cuda = niti_cuda(backend);
  const int V = niti_words_fit(niti_shape_image(x->shape), y->data, x->data, mask) ? 4 : 1;
  const MapArgs args = {y->data,
                        x->data,
                        mask,
                        niti_blocked_of(y, V),
                        y->exponent,
                        x->exponent,
                        e_out,
                        limit,
                        niti_tiles_of(x->shape, V, NITI_BLOCK_IMAGES)};
  void (*map)(MapArgs) = V == 4 ? map_kernel<4, MAP> : map_kernel<1, MAP>;
  NITI_LAUNCH(cuda, map, niti_tiles_grid(args.tiles), NITI_TILE_THREADS, 0, args);
  niti_cuda_blocked_set(cuda, y, args.blocked != NULL);
}

extern "C" void niti_cuda_relu_forward(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, int32_t limit) {
  run<MAP_POSITIVE>(backend, y, x, NULL, x->exponent, limit);
}

extern "C" void niti_cuda_relu_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *y,
                                        int32_t limit) {
  run<MAP_MASK>(backend, dx, dy, y->data, y->exponent, limit);
}
