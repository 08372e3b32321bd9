/* Residual add. Where the output is an input's memory the first launch writes nothing, so that the second still finds both. */
#include "backend/cuda/tile.cuh"
#include "base/align.h"

typedef struct Add {
  int8_t *y; /* may be a or b */
  const int8_t *a, *b;
  const int32_t *e_a, *e_b; /* y's may be one of them */
  int8_t *blocked;          /* of y, or NULL */
  const int8_t *mask;       /* or NULL */
  bool in_place;
  NitiTiles tiles;
} Add;

static __device__ inline int accumulate(const NitiAlignment &r, int a, int b) {
  return niti_align_sum(r.a_larger ? a : b, r.a_larger ? b : a, r.left, r.right);
}

template <int V, bool MASKED>
static __global__ void __launch_bounds__(NITI_TILE_THREADS) add_kernel(Add d, NitiRequantiseArgs a, bool second) {
  niti_kernel_begin();
  __shared__ uint4 scratch[NITI_TILE_WARPS][NITI_BLOCKED_UNITS];
  const NitiTiles &t = d.tiles;
  const NitiAlignment r = niti_align(*d.e_a, *d.e_b);
  const bool write = second || !d.in_place;
  uint32_t max = 0;
  int shift;
  if (niti_range_begin(a, second, &shift) || d.in_place) {
    for (uint32_t item = niti_tile_first(); item < t.items; item += niti_tile_step()) {
      const NitiTile tile = niti_tile_at<V, NITI_BLOCK_IMAGES>(t, item);
      uint32_t words[NITI_BLOCK_IMAGES], others[NITI_BLOCK_IMAGES], masks[NITI_BLOCK_IMAGES];
#pragma unroll
      for (int i = 0; i < NITI_BLOCK_IMAGES; ++i) {
        const size_t at = tile.at + (size_t)i * t.image;
        words[i] = i < tile.images ? niti_word_load<V>(d.a + at) : 0;
        others[i] = i < tile.images ? niti_word_load<V>(d.b + at) : 0;
        masks[i] = MASKED && i < tile.images ? niti_word_load<V>(d.mask + at) : 0;
      }
#pragma unroll
      for (int i = 0; i < NITI_BLOCK_IMAGES; ++i) {
        const size_t at = tile.at + (size_t)i * t.image;
        int acc[V];
#pragma unroll
        for (int k = 0; k < V; ++k) {
          acc[k] = accumulate(r, (int8_t)(words[i] >> (8 * k)), (int8_t)(others[i] >> (8 * k)));
          max = niti_magnitude(acc[k]) > max ? niti_magnitude(acc[k]) : max;
        }
        if (i >= tile.images || !write) continue;
        words[i] = niti_word_requantise<V>(a, acc, shift, at);
        if (a.relu) words[i] &= niti_word_positive(words[i]);
        if (MASKED) words[i] &= niti_word_positive(masks[i]);
        niti_word_store<V>(d.y + at, words[i]);
      }
      if (V == 4 && d.blocked && write) {
        niti_tile_blocked(niti_blocked_block(d.blocked, tile.block, t.image), scratch[threadIdx.x / 32], words, tile.p, t.image);
      }
    }
  }
  a.e_a = a.e_b = NULL;
  a.e_c = r.exponent;
  niti_pass_end(a, second, max);
}

extern "C" void niti_cuda_add(NitiBackend *backend, NitiTensor *y, const NitiTensor *a, const NitiTensor *b,
                              const NitiTensor *mask, bool relu, const NitiRequantise *rq) {
  NitiCuda *cuda = niti_cuda(backend);
  const size_t image = niti_shape_image(a->shape);
  const bool fit =
      niti_words_fit(image, y->data, a->data, b->data) && niti_words_fit(image, mask ? mask->data : NULL, NULL, NULL);
  const int V = fit ? 4 : 1;
  const Add args = {y->data,
                    a->data,
                    b->data,
                    a->exponent,
                    b->exponent,
                    niti_blocked_of(y, V),
                    mask ? mask->data : NULL,
                    y->data == a->data || y->data == b->data,
                    niti_tiles_of(a->shape, V, NITI_BLOCK_IMAGES)};
  const NitiRequantiseArgs requantise = niti_requantise_args(cuda, rq, y->exponent, NULL, NULL, 0, relu);
  void (*add)(Add, NitiRequantiseArgs, bool) =
      V == 4 ? (mask ? add_kernel<4, true> : add_kernel<4, false>) : (mask ? add_kernel<1, true> : add_kernel<1, false>);
  const unsigned grid = niti_tiles_grid_requantise(cuda, args.tiles);
  NITI_LAUNCH(cuda, add, grid, NITI_TILE_THREADS, 0, args, requantise, false);
  niti_cuda_share_range(cuda);
  NITI_LAUNCH(cuda, add, grid, NITI_TILE_THREADS, 0, args, requantise, true);
  niti_cuda_blocked_set(cuda, y, args.blocked != NULL);
}
