/* Weights as the passes of the mma.sync family read them. */
#include "backend/cuda/mma.cuh"

enum { THREADS = 256, SIDE = 64 };

/* One thread per byte: rows of `row` bytes become rows of `pitch`. */
static __global__ void __launch_bounds__(THREADS)
    pack_kernel(int8_t *packed, size_t pitch, const int8_t *w, size_t row, size_t bytes) {
  niti_kernel_begin();
  const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= bytes) return;
  const size_t k = i / pitch, at = i - k * pitch;
  packed[i] = at < row ? w[k * row + at] : (int8_t)0;
}

void niti_mma_pack(NitiCuda *cuda, int8_t *packed, size_t pitch, const int8_t *w, const NitiConv *s) {
  const size_t row = (size_t)s->kh * (size_t)s->kw * (size_t)s->c, bytes = pitch * (size_t)s->k;
  NITI_LAUNCH(cuda, pack_kernel, (unsigned)((bytes + THREADS - 1) / THREADS), THREADS, 0, packed, pitch, w, row, bytes);
}

struct Packings {
  NitiMmaPacking of[NITI_MMA_PHASES];
};

/* 64 by 64 per block; blockIdx.z: the packing. */
static __global__ void __launch_bounds__(THREADS)
    transpose_kernel(const __grid_constant__ Packings packings, const int8_t *w, NitiConv s) {
  niti_kernel_begin();
  __shared__ int8_t tile[SIDE][SIDE + 4];
  int8_t *const packed = packings.of[blockIdx.z].packed;
  const size_t pitch = packings.of[blockIdx.z].pitch;
  const NitiMmaTaps y = packings.of[blockIdx.z].y, x = packings.of[blockIdx.z].x;
  const int across = (s.c + SIDE - 1) / SIDE, tap = blockIdx.x / across;
  if (tap >= y.count * x.count) return; /* another has more taps */
  const int c0 = (int)(blockIdx.x % across) * SIDE, k0 = (int)blockIdx.y * SIDE, a = tap / x.count, b = tap % x.count;
  const int8_t *from = w + ((size_t)(y.last - a * y.step) * s.kw + (x.last - b * x.step)) * s.c;
  const size_t filter = (size_t)s.kh * s.kw * s.c;
  for (int i = threadIdx.x; i < SIDE * SIDE; i += THREADS) {
    const int k = k0 + i / SIDE, c = c0 + i % SIDE;
    if (k < s.k && c < s.c) tile[i / SIDE][i % SIDE] = from[k * filter + c];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < SIDE * SIDE; i += THREADS) {
    const int c = c0 + i / SIDE, k = k0 + i % SIDE;
    if (k < s.k && c < s.c) packed[c * pitch + (size_t)tap * s.k + k] = tile[i % SIDE][i / SIDE];
  }
}

void niti_mma_pack_transposed(NitiCuda *cuda, const NitiMmaPacking *packings, int count, const int8_t *w, const NitiConv *s) {
  Packings all = {};
  int taps = 0;
  unsigned used = 0;
  for (int i = 0; i < count; ++i) {
    const NitiMmaPacking &p = packings[i];
    const int own = p.y.count * p.x.count;
    if (own == 0) continue;
    if (p.pitch != (size_t)own * (size_t)s->k)
      niti_cuda_note(cuda, niti_cuda_runtime.cudaMemsetAsync(p.packed, 0, p.pitch * (size_t)s->c, cuda->stream),
                     "cudaMemsetAsync");
    taps = own > taps ? own : taps;
    all.of[used++] = p;
  }
  if (used == 0) return;
  const dim3 grid((unsigned)((s->c + SIDE - 1) / SIDE * taps), (unsigned)((s->k + SIDE - 1) / SIDE), used);
  NITI_LAUNCH(cuda, transpose_kernel, grid, THREADS, 0, all, w, *s);
}

/* Beyond the sum: entries of the first position, to be multiplied by 0. */
static __global__ void __launch_bounds__(THREADS)
    table_kernel(NitiMmaEntry *table, int entries, int tap_rows, int tap_columns, int channels, int in_row) {
  niti_kernel_begin();
  const int i = (int)(blockIdx.x * THREADS + threadIdx.x);
  if (i >= entries) return;
  const int tap = i / channels, y = tap / tap_columns, x = tap % tap_columns;
  NitiMmaEntry entry = {y * in_row + x * channels + i % channels, (uint16_t)y, (uint16_t)x};
  if (y >= tap_rows) entry = NitiMmaEntry{0, 0, 0};
  table[i] = entry;
}

void niti_mma_table(NitiCuda *cuda, NitiMmaEntry *table, int entries, int tap_rows, int tap_columns, int channels, int in_row) {
  if (entries == 0) return;
  NITI_LAUNCH(cuda, table_kernel, (unsigned)((entries + THREADS - 1) / THREADS), THREADS, 0, table, entries, tap_rows,
              tap_columns, channels, in_row);
}
