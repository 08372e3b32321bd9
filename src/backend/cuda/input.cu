/* Pixels as mantissas: the window of every sample through the input table. */
#include "backend/cuda/tile.cuh"

enum { IMAGES = NITI_BLOCK_IMAGES, THREADS = 32 * IMAGES, TABLE = 256 };

typedef struct Input {
  int8_t *out, *blocked; /* blocked may be NULL */
  int32_t *exponent;
  const int32_t *e; /* of the table */
  NitiShape shape, source;
  const uint8_t *images;
  const NitiSample *samples;
  const int8_t *table;
  NitiTiles tiles;
} Input;

/* The mantissa of position p of a sample; pixels outside the source are raw 0. */
static __device__ inline uint32_t look_up(const Input &in, const NitiSample &sample, uint32_t p) {
  const uint32_t C = (uint32_t)in.shape.c, W = (uint32_t)in.shape.w;
  const uint32_t pixel = p / C, c = p - pixel * C, h = pixel / W, w = pixel - h * W;
  const int32_t source_h = (int32_t)h + sample.dy, source_w = (int32_t)(sample.flip ? W - 1 - w : w) + sample.dx;
  uint32_t v = 0;
  if (source_h >= 0 && source_h < in.source.h && source_w >= 0 && source_w < in.source.w) {
    const size_t row = (size_t)sample.image * (size_t)in.source.h + (size_t)source_h;
    v = in.images[(row * (size_t)in.source.w + (size_t)source_w) * C + c];
  }
  return (uint8_t)in.table[c * TABLE + v];
}

/* One block per tile, one warp per image of it. */
static __global__ void __launch_bounds__(THREADS) input_kernel(Input in) {
  niti_kernel_begin();
  __shared__ uint32_t words[IMAGES][32];
  __shared__ uint4 scratch[NITI_BLOCKED_UNITS];
  const NitiTiles &t = in.tiles;
  const uint32_t block = blockIdx.x / t.tiles, tile = blockIdx.x - block * t.tiles;
  const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x / 32, p = (tile * 32 + lane) * 4;
  const size_t n = (size_t)block * IMAGES + warp;
  uint32_t word = 0;
  if (n < (size_t)t.n && p < t.image) {
    const NitiSample sample = in.samples[n];
    int8_t *out = in.out + n * t.image + p;
    const uint32_t count = t.image - p < 4 ? t.image - p : 4;
#pragma unroll
    for (uint32_t k = 0; k < 4; ++k) {
      if (k < count) word |= look_up(in, sample, p + k) << (8 * k);
    }
    if (t.image % 4 == 0) {
      *(uint32_t *)out = word;
    } else {
      for (uint32_t k = 0; k < count; ++k) out[k] = (int8_t)(word >> (8 * k));
    }
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *in.exponent = *in.e;
  if (!in.blocked) return;
  words[warp][lane] = word;
  __syncthreads();
  if (warp > 0) return;
  uint32_t mine[IMAGES];
#pragma unroll
  for (int i = 0; i < IMAGES; ++i) mine[i] = words[i][lane];
  niti_tile_blocked(niti_blocked_block(in.blocked, block, t.image), scratch, mine, p, t.image);
}

extern "C" void niti_cuda_input(NitiBackend *backend, NitiTensor *out, const uint8_t *images, NitiShape source,
                                const NitiSample *samples, const NitiTensor *table) {
  NitiCuda *cuda = niti_cuda(backend);
  const Input in = {out->data,     niti_blocked_of(out, 4),
                    out->exponent, table->exponent,
                    out->shape,    source,
                    images,        samples,
                    table->data,   niti_tiles_of(out->shape, 4, IMAGES)};
  NITI_LAUNCH(cuda, input_kernel, in.tiles.items, THREADS, 0, in);
  niti_cuda_blocked_set(cuda, out, in.blocked != NULL);
}
