/* ReLU forward and backward: what maps an element to an element and keeps the exponent. */
#include "backend/cuda/tile.cuh"

enum Map { MAP_POSITIVE, MAP_GATE };

typedef struct MapArgs {
  int8_t *y; /* may be x */
  const int8_t *x, *gate;
  int8_t *twin; /* of y, or NULL */
  int32_t *e_y;
  const int32_t *e_x;
  NitiTiles tiles;
} MapArgs;

template <int V, int MAP>
static __global__ void __launch_bounds__(NITI_TILE_THREADS) map_kernel(MapArgs m) {
  niti_kernel_begin();
  __shared__ uint4 scratch[NITI_TILE_WARPS][NITI_TWIN_UNITS];
  const NitiTiles &t = m.tiles;
  for (uint32_t item = niti_tile_first(); item < t.items; item += niti_tile_step()) {
    const NitiTile tile = niti_tile_at<V, NITI_TWIN_IMAGES>(t, item);
    uint32_t words[NITI_TWIN_IMAGES], gates[NITI_TWIN_IMAGES];
#pragma unroll
    for (int i = 0; i < NITI_TWIN_IMAGES; ++i) {
      const size_t at = tile.at + (size_t)i * t.image;
      words[i] = i < tile.images ? niti_word_load<V>(m.x + at) : 0;
      if (MAP == MAP_GATE) gates[i] = i < tile.images ? niti_word_load<V>(m.gate + at) : 0;
    }
#pragma unroll
    for (int i = 0; i < NITI_TWIN_IMAGES; ++i) {
      if (MAP == MAP_POSITIVE) words[i] &= niti_word_positive(words[i]);
      if (MAP == MAP_GATE) words[i] &= niti_word_positive(gates[i]);
      if (i < tile.images) niti_word_store<V>(m.y + tile.at + (size_t)i * t.image, words[i]);
    }
    if (V == 4 && m.twin) {
      niti_tile_twin(niti_twin_block(m.twin, tile.block, t.image), scratch[threadIdx.x / 32], words, tile.p, t.image);
    }
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *m.e_y = *m.e_x;
}

template <int MAP>
static void run(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, const int8_t *gate) {
  NitiCuda *cuda = niti_cuda(backend);
  const int V = niti_words_fit(niti_shape_image(x->shape), y->data, x->data, gate) ? 4 : 1;
  const MapArgs args = {
      y->data, x->data, gate, niti_twin_of(y, V), y->exponent, x->exponent, niti_tiles_of(x->shape, V, NITI_TWIN_IMAGES)};
  void (*map)(MapArgs) = V == 4 ? map_kernel<4, MAP> : map_kernel<1, MAP>;
  NITI_LAUNCH(cuda, map, niti_tiles_grid(args.tiles), NITI_TILE_THREADS, 0, args);
  niti_cuda_twin_set(cuda, y, args.twin != NULL);
}

extern "C" void niti_cuda_relu_forward(NitiBackend *backend, NitiTensor *y, const NitiTensor *x) {
  run<MAP_POSITIVE>(backend, y, x, NULL);
}

extern "C" void niti_cuda_relu_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *y) {
  run<MAP_GATE>(backend, dx, dy, y->data);
}
