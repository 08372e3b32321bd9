/* Weight gradients with mma.sync: rows are output channels, columns (tap, input channel), the sum runs over blocks of 16 images
 * and output pixels.
 *
 * The blocked layouts of the delta and of the input have 16 images of a pixel and channel as one 16-byte run, so both operands
 * are copied unchanged; a tap is a shift of the input's pixel. Blocks share a tile's sum, each at most
 * NITI_ACCUMULATION_MAX products in int32, and add theirs to the gradient with integer atomics: exact, in whatever order. Where a
 * tile has one block, as in linear layers, it stores the sums: their gradients are large, and atomics would take most of the
 * time. */
#include <stdio.h>

#include "backend/cuda/mma.cuh"

enum {
  STAGES = 4,
  POSITIONS = 4,                                             /* of a stage: (block of images, output pixel) */
  POSITIONS_MAX = NITI_ACCUMULATION_MAX / NITI_BLOCK_IMAGES, /* of a block of threads */
  OVERHEAD = 48, /* of a block of threads, in positions: its first copies and its atomics */
  SPLITS_MAX = 1024,
};

/* By value to the kernel. */
struct Problem {
  const int8_t *dy, *x; /* layouts */
  void *gradient;
  int bits;
  int32_t rows, columns; /* K, KH * KW * C */
  int32_t h, w, c, kw;
  int32_t stride_h, stride_w, pad_h, pad_w;
  NitiDivisor pixels, across; /* OH * OW, OW */
  NitiDivisor tiles_across;
  int32_t positions, share; /* in all, and of one block of threads */
  uint32_t tiles;
  bool alone;  /* one block of threads per tile */
  bool paired; /* two neighbours of a row are aligned to their size */
};

/* A column: its channel's runs in the input's blocked, and its tap's shift. */
struct Column {
  const int8_t *from;
  int32_t y, x;
};

static __device__ inline Column column_of(const Problem &p, int column) {
  Column c = {p.x, -(1 << 30), 0};
  if (column >= p.columns) return c;
  const int tap = column / p.c, y = tap / p.kw;
  c.from += (int64_t)(column - tap * p.c) * NITI_BLOCK_IMAGES;
  c.y = y - p.pad_h;
  c.x = tap - y * p.kw - p.pad_w;
  return c;
}

/* A thread's sums into the gradient: rows row, row + 8, ... and of each 8 columns the pair that begins at `column`. */
template <typename SUM, int MI, int NI>
static __device__ inline void add(const Problem &p, const int (&acc)[MI][NI][4], int row, int column) {
  SUM *gradient = (SUM *)p.gradient + (int64_t)row * p.columns + column;
#pragma unroll
  for (int i = 0; i < MI * 2; ++i) {
#pragma unroll
    for (int j = 0; j < NI * 2; ++j) {
      const int below = i * 8, beside = j / 2 * 8 + j % 2;
      if (row + below < p.rows && column + beside < p.columns) {
        atomicAdd(gradient + (int64_t)below * p.columns + beside, (SUM)(long long)acc[i / 2][j / 2][i % 2 * 2 + j % 2]);
      }
    }
  }
}

template <typename SUM>
struct __align__(2 * sizeof(SUM)) Pair {
  SUM first, second;
};

/* The same where no other block has a share; column is even. */
template <typename SUM, int MI, int NI>
static __device__ inline void store(const Problem &p, const int (&acc)[MI][NI][4], int row, int column) {
  SUM *gradient = (SUM *)p.gradient + (int64_t)row * p.columns + column;
#pragma unroll
  for (int i = 0; i < MI * 2; ++i) {
#pragma unroll
    for (int j = 0; j < NI; ++j) {
      const int *sums = &acc[i / 2][j][i % 2 * 2], below = i * 8, beside = j * 8;
      SUM *at = gradient + (int64_t)below * p.columns + beside;
      if (row + below >= p.rows || column + beside >= p.columns) continue;
      if (p.paired) {
        *(Pair<SUM> *)at = Pair<SUM>{sums[0], sums[1]};
        continue;
      }
      at[0] = sums[0];
      if (column + beside + 1 < p.columns) at[1] = sums[1];
    }
  }
}

/* SUM: of the gradient, WORD: what atomics add to it. */
template <typename SUM, typename WORD, int MI, int NI>
static __device__ inline void finish(const Problem &p, const int (&acc)[MI][NI][4], int row, int column) {
  if (p.alone)
    store<SUM, MI, NI>(p, acc, row, column);
  else
    add<WORD, MI, NI>(p, acc, row, column);
}

NITI_DYNAMIC_SHARED(niti_mma_gradient_shared);

/* A tile of WARPS_M * MI * 16 rows and WARPS_N * NI * 8 columns. A stage in shared memory: [position][row][16], then the same of
 * columns: 8 neighbouring runs fill all banks once. */
template <int WARPS_M, int WARPS_N, int MI, int NI, int BLOCKS>
static __global__ void __launch_bounds__(NITI_MMA_THREADS, BLOCKS) mma_gradient(const __grid_constant__ Problem p) {
  niti_kernel_begin();
  constexpr int ROWS = WARPS_M * MI * 16, COLUMNS = WARPS_N * NI * 8, RUN = NITI_BLOCK_IMAGES, THREADS = NITI_MMA_THREADS;
  constexpr uint32_t COLUMNS_FROM = POSITIONS * ROWS * RUN, STAGE = POSITIONS * (ROWS + COLUMNS) * RUN;
  /* A thread copies one row (of a few of the stage's positions), and one column or more. */
  constexpr int ROW_COPIES = (POSITIONS * ROWS + THREADS - 1) / THREADS, COLUMN_COPIES = POSITIONS * COLUMNS / THREADS;
  constexpr int MY_COLUMNS = COLUMNS > THREADS ? COLUMNS / THREADS : 1;
  static_assert(WARPS_M * WARPS_N * 32 == THREADS && COLUMN_COPIES >= 1, "tile");
  const uint32_t split = blockIdx.x / p.tiles, tile = blockIdx.x - split * p.tiles;
  const uint32_t down = niti_divide(p.tiles_across, tile);
  const int row0 = (int)down * ROWS, column0 = (int)(tile - down * p.tiles_across.divisor) * COLUMNS;
  const int begin = (int)split * p.share, end = min(begin + p.share, p.positions);

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_m = warp % WARPS_M, warp_n = warp / WARPS_M;
  const uint32_t shared = niti_shared_address(niti_mma_gradient_shared);
  const uint32_t a_from = ((lane >> 4) * ROWS + warp_m * MI * 16 + (lane & 15)) * RUN;
  const uint32_t b_from = COLUMNS_FROM + ((lane >> 3 & 1) * COLUMNS + warp_n * NI * 8 + (lane & 7) + (lane >> 4 << 3)) * RUN;
  const int row = row0 + (int)threadIdx.x % ROWS;
  const int8_t *dy = p.dy + (int64_t)min(row, p.rows - 1) * RUN;
  const int64_t dy_step = (int64_t)p.rows * RUN, x_step = (int64_t)p.c * RUN;
  Column columns[MY_COLUMNS];
#pragma unroll
  for (int i = 0; i < MY_COLUMNS; ++i) columns[i] = column_of(p, column0 + ((int)threadIdx.x + i * THREADS) % COLUMNS);

  /* One stage; past the end zeros. */
  const auto copy_rows = [&](int at, uint32_t stage) {
    const uint32_t to = shared + stage * STAGE + threadIdx.x * RUN;
#pragma unroll
    for (int i = 0; i < ROW_COPIES; ++i) {
      if (POSITIONS * ROWS < THREADS && (int)threadIdx.x >= POSITIONS * ROWS) break;
      const int position = at + (int)(threadIdx.x + i * THREADS) / ROWS;
      const bool there = position < end && row < p.rows;
      niti_copy16(to + i * THREADS * RUN, dy + position * dy_step, there);
    }
  };
  const auto copy_columns = [&](int at, uint32_t stage) {
    const uint32_t to = shared + stage * STAGE + COLUMNS_FROM + threadIdx.x * RUN;
#pragma unroll
    for (int i = 0; i < COLUMN_COPIES; ++i) {
      const int position = at + (COLUMNS >= THREADS ? i * THREADS / COLUMNS : (int)(threadIdx.x + i * THREADS) / COLUMNS);
      const uint32_t block = niti_divide(p.pixels, position), pixel = position - block * p.pixels.divisor;
      const uint32_t oy = niti_divide(p.across, pixel), ox = pixel - oy * p.across.divisor;
      const Column &c = columns[i % MY_COLUMNS];
      const int y = (int)oy * p.stride_h + c.y, x = (int)ox * p.stride_w + c.x;
      const bool there = position < end && (uint32_t)y < (uint32_t)p.h && (uint32_t)x < (uint32_t)p.w;
      const uint32_t from = (block * (uint32_t)p.h + (uint32_t)y) * (uint32_t)p.w + (uint32_t)x;
      niti_copy16(to + i * THREADS * RUN, c.from + from * x_step, there);
    }
  };

  int acc[MI][NI][4];
#pragma unroll
  for (int i = 0; i < MI * NI * 4; ++i) acc[i / (NI * 4)][i / 4 % NI][i % 4] = 0;
#pragma unroll
  for (int s = 0; s < STAGES - 1; ++s) {
    copy_rows(begin + s * POSITIONS, s);
    copy_columns(begin + s * POSITIONS, s);
    niti_copy_commit();
  }
  uint32_t stage = 0, next = STAGES - 1;
  for (int at = begin; at < end; at += POSITIONS) {
    niti_copy_wait<STAGES - 2>();
    __syncthreads(); /* this stage is there, and the one before has been read */
    const uint32_t base = shared + stage * STAGE;
#pragma unroll
    for (int k = 0; k < POSITIONS / 2; ++k) {
      uint32_t a[MI][4], b[NI / 2][4];
#pragma unroll
      for (int mi = 0; mi < MI; ++mi) niti_load_matrices(a[mi], base + a_from + (k * 2 * ROWS + mi * 16) * RUN);
#pragma unroll
      for (int j = 0; j < NI / 2; ++j) niti_load_matrices(b[j], base + b_from + (k * 2 * COLUMNS + j * 16) * RUN);
      if (k == 0) copy_rows(at + (STAGES - 1) * POSITIONS, next); /* among the products */
      if (k == POSITIONS / 2 - 1) copy_columns(at + (STAGES - 1) * POSITIONS, next);
      niti_mma_all<MI, NI>(acc, a, b);
    }
    niti_copy_commit();
    stage = stage + 1 == STAGES ? 0 : stage + 1;
    next = next + 1 == STAGES ? 0 : next + 1;
  }
  niti_copy_wait<0>();
  const int my_row = row0 + warp_m * MI * 16 + lane / 4, my_column = column0 + warp_n * NI * 8 + lane % 4 * 2;
  if (p.bits == 32)
    finish<int, int, MI, NI>(p, acc, my_row, my_column);
  else
    finish<long long, unsigned long long, MI, NI>(p, acc, my_row, my_column);
}

/* ---- host ---- */

typedef void (*Kernel)(Problem);
struct Variant {
  Kernel kernel;
  int rows, columns, blocks; /* of a multiprocessor */
};

template <int WARPS_M, int WARPS_N, int MI, int NI, int BLOCKS>
static Variant variant() {
  return Variant{mma_gradient<WARPS_M, WARPS_N, MI, NI, BLOCKS>, WARPS_M * MI * 16, WARPS_N * NI * 8, BLOCKS};
}

static const struct {
  const char *name;
  Variant (*variant)(void);
} tiles[] = {{"16x64", variant<1, 4, 1, 2, 4>},  {"16x256", variant<1, 4, 1, 8, 4>}, {"128x32", variant<4, 1, 2, 4, 4>},
             {"128x64", variant<4, 1, 2, 8, 4>}, {"64x128", variant<2, 2, 2, 8, 4>}, {"128x128", variant<2, 2, 4, 8, 2>}};
enum { TILES = sizeof tiles / sizeof *tiles };

/* How the sum is split among blocks of threads: as share_of says, or into twice or half as many parts. */
enum { SPLITS_OWN, SPLITS_MORE, SPLITS_FEWER, SPLIT_WAYS };
static const char *const split_names[SPLIT_WAYS] = {"", ", more splits", ", fewer splits"};

int niti_mma_gradient_ways(NitiWay ways[NITI_WAYS_MAX], int count) {
  for (int i = 0; i < TILES * SPLIT_WAYS; ++i) {
    char name[NITI_WAY_NAME_MAX];
    (void)snprintf(name, sizeof name, "mma %s%s", tiles[i / SPLIT_WAYS].name, split_names[i % SPLIT_WAYS]);
    count = niti_cuda_add_way(ways, count, i + 1, name);
  }
  return count;
}

/* Positions of one block of threads: those that keep the busiest multiprocessor busy for the shortest time. A block alone on its
 * multiprocessor counts half as much again. */
static int32_t share_of(int32_t positions, uint32_t tiles, uint32_t multiprocessors) {
  int64_t best = INT64_MAX;
  int32_t share = positions < POSITIONS_MAX ? positions : POSITIONS_MAX;
  const int32_t first = (positions + POSITIONS_MAX - 1) / POSITIONS_MAX;
  for (int32_t splits = first, next; splits < first + SPLITS_MAX; splits = next) {
    int32_t each = (positions + splits - 1) / splits;
    each = (each + POSITIONS - 1) / POSITIONS * POSITIONS;
    next = splits + 1;
    if (each > POSITIONS_MAX) continue;
    const int64_t blocks = (int64_t)tiles * ((positions + each - 1) / each);
    const int64_t deep = (blocks + multiprocessors - 1) / multiprocessors;
    const int64_t cost = (deep == 1 ? 3 : 2 * deep) * (each + OVERHEAD);
    if (cost < best) best = cost, share = each;
    if (each == POSITIONS || 2 * deep * (POSITIONS + OVERHEAD) >= best) break;       /* more parts never cost less */
    const int32_t smaller = (positions + each - POSITIONS - 1) / (each - POSITIONS); /* parts, for the next size */
    next = smaller > next ? smaller : next;
  }
  return share;
}

static int32_t scaled(int32_t share, int splits) {
  if (splits == SPLITS_OWN) return share;
  const int32_t other = splits == SPLITS_MORE ? (share / 2 + POSITIONS - 1) / POSITIONS * POSITIONS : 2 * share;
  return other < POSITIONS ? POSITIONS : other > POSITIONS_MAX ? POSITIONS_MAX : other;
}

/* How a way cuts the product. */
struct Cut {
  uint32_t across, tiles; /* tiles of a row, and in all */
  int32_t positions, share;
};

/* As share_of says; see scaled. */
static Cut cut_of(const NitiConv *s, const Variant &v, int multiprocessors) {
  const int columns = s->kh * s->kw * s->c;
  Cut c;
  c.across = (uint32_t)((columns + v.columns - 1) / v.columns);
  c.tiles = (uint32_t)((s->k + v.rows - 1) / v.rows) * c.across;
  c.positions = (s->n + NITI_BLOCK_IMAGES - 1) / NITI_BLOCK_IMAGES * s->oh * s->ow;
  c.share = share_of(c.positions, c.tiles, (uint32_t)multiprocessors);
  return c;
}

static int32_t splits_of(const Cut &c) { return (c.positions + c.share - 1) / c.share; }

/* Picoseconds of a stage (4 positions) while so many blocks of threads share a multiprocessor. Each block has work of its own
 * (copies by rows and columns, products by both), and waits for the copies before it may begin. */
static int64_t stage_time(const Variant &v, int64_t blocks) {
  const int64_t work = 10800 + 69 * v.rows + 211 * v.columns + 827 * v.rows * v.columns / 100;
  return 12200 + 166 * work / 100 + blocks * work;
}

/* Picoseconds that a way is expected to take; the constants are those of an H200, fitted to all ways of 50 gradients of four
 * networks (docs/benchmarks.md). */
static int64_t time_of(const NitiConv *s, const Variant &v, const Cut &c, int multiprocessors) {
  const int64_t rows = s->k, columns = (int64_t)s->kh * s->kw * s->c, down = c.tiles / c.across, splits = splits_of(c);
  const int64_t blocks = (int64_t)c.tiles * splits, slots = (int64_t)multiprocessors * v.blocks;
  const int64_t full = blocks / slots, last = (blocks % slots + multiprocessors - 1) / multiprocessors;
  const int64_t length = c.share < c.positions ? c.share : c.positions, stages = (length + POSITIONS - 1) / POSITIONS;
  int64_t sums = stages * (full * stage_time(v, v.blocks) + (last > 0 ? stage_time(v, last) : 0));
  if (splits == 1) sums += sums * 42 / 100; /* all blocks walk through the same positions at once, and want the same lines */
  const int64_t copied = (int64_t)c.positions * NITI_BLOCK_IMAGES * (c.across * rows + down * columns); /* bytes */
  const int64_t ends = 124 * (rows * columns / c.tiles) * ((blocks + multiprocessors - 1) / multiprocessors);
  const int64_t time = 2050000 + (full + (last > 0)) * 33500 + sums + copied * 15 / 1000 + ends;
  if (splits == 1) return time;
  const bool wide = (int64_t)s->n * s->oh * s->ow > NITI_ACCUMULATION_MAX;                 /* sums of 64 bits */
  return time + 2220000 + splits * (35300 + rows * columns * (wide ? 6490 : 2660) / 1000); /* zeros first; then atomics */
}

int niti_mma_gradient_way(const NitiConv *s, int multiprocessors, int64_t *picoseconds) {
  int best = 0;
  *picoseconds = INT64_MAX;
  for (int tile = 0; tile < TILES; ++tile) {
    const Variant v = tiles[tile].variant();
    const Cut own = cut_of(s, v, multiprocessors);
    for (int splits = 0; splits < SPLIT_WAYS; ++splits) {
      Cut c = own;
      c.share = scaled(own.share, splits);
      const int64_t time = time_of(s, v, c, multiprocessors);
      if (time < *picoseconds) *picoseconds = time, best = tile * SPLIT_WAYS + splits + 1;
    }
  }
  return best;
}

void niti_mma_gradient(NitiCuda *cuda, NitiGradient *gradient, const NitiTensor *dy, const NitiTensor *x, const NitiConv *s,
                       int way) {
  int64_t time;
  if (way == 0) way = niti_mma_gradient_way(s, cuda->multiprocessors, &time);
  const Variant v = tiles[(way - 1) / SPLIT_WAYS].variant();
  Cut cut = cut_of(s, v, cuda->multiprocessors);
  cut.share = scaled(cut.share, (way - 1) % SPLIT_WAYS);
  Problem p = {};
  p.dy = niti_cuda_blocked(dy);
  p.x = niti_cuda_blocked(x);
  p.gradient = gradient->data;
  p.bits = gradient->bits;
  p.rows = s->k;
  p.columns = s->kh * s->kw * s->c;
  p.h = s->h, p.w = s->w, p.c = s->c, p.kw = s->kw;
  p.stride_h = s->stride_h, p.stride_w = s->stride_w, p.pad_h = s->pad_h, p.pad_w = s->pad_w;
  p.pixels = niti_divisor((uint32_t)s->oh * (uint32_t)s->ow);
  p.across = niti_divisor((uint32_t)s->ow);
  p.positions = cut.positions;
  p.tiles_across = niti_divisor(cut.across);
  p.tiles = cut.tiles;
  p.share = cut.share;
  const uint32_t splits = (uint32_t)splits_of(cut);
  p.alone = splits == 1;
  p.paired = p.columns % 2 == 0 && (uintptr_t)gradient->data % (size_t)(gradient->bits / 4) == 0;
  if (!p.alone)
    niti_cuda_note(
        cuda, niti_cuda_runtime.cudaMemsetAsync(gradient->data, 0, gradient->count * (size_t)(gradient->bits / 8), cuda->stream),
        "cudaMemsetAsync");
  const int shared = STAGES * POSITIONS * (v.rows + v.columns) * NITI_BLOCK_IMAGES;
  const Kernel mma_gradient = v.kernel;
  niti_cuda_note(
      cuda,
      niti_cuda_runtime.cudaFuncSetAttribute((const void *)mma_gradient, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
      "mma_gradient: shared memory");
  niti_cuda_note(cuda,
                 niti_cuda_runtime.cudaFuncSetAttribute(
                     (const void *)mma_gradient, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
                 "mma_gradient: shared memory");
  NITI_LAUNCH(cuda, mma_gradient, p.tiles * splits, NITI_MMA_THREADS, (size_t)shared, p);
}
