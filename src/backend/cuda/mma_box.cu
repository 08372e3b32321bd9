/* Convolution forward, and backward to the input, with mma.sync, where there are few channels: windows overlap so much that
 * copying each by itself, as mma_tiled.cu does, costs more than the products.
 *
 * A block of threads takes tiles of output pixels of 16 images. It copies the box of the input that the tile's windows meet,
 * once, and keeps all weights beside it in shared memory (backward: transposed on the way there, so that no launch packs them). A
 * warp takes a few pixels at a time; the 16 rows of a product are the images of a pixel, so a tap is an offset in the box. Images
 * in the box are an odd number of 16-byte chunks apart, as are rows of weights: eight of either fill all banks once. */
#include "backend/cuda/mma_box.h"
#include "backend/cuda/mma_pixels.cuh"

enum {
  WARPS = 8,
  THREADS = WARPS * 32,
  IMAGES = NITI_BLOCK_IMAGES,
  CHUNK = 16,
  SHARED_MOST = 96 * 1024,
  SHARED_ALL = 224 * 1024, /* of a multiprocessor, about */
  TRANSPOSES = 4,          /* that a thread has under way */
};

NITI_DYNAMIC_SHARED(niti_mma_box_shared);

/* The row of shared memory that holds a channel: niti_mma_column undone. */
template <int NI>
static __device__ inline int row_of(int channel) {
  return channel / (NI * 8) * (NI * 8) + channel % (2 * NI) / 2 * 8 + channel % (NI * 8) / (2 * NI) * 2 + channel % 2;
}

/* Offsets of the sum's chunks in the box; past its end, where weights are 0, any. Two more are read ahead. */
static __device__ inline void make_table(const NitiMmaBox &b) {
  const NitiMmaPass &p = b.pass;
  for (int i = (int)threadIdx.x; i < 2 * b.steps + 2; i += THREADS) {
    const uint32_t tap = niti_divide(p.runs, (uint32_t)i), y = niti_divide(p.taps, tap);
    const int x = (int)(tap - y * p.taps.divisor), piece = i - (int)(tap * p.runs.divisor);
    ((int *)niti_mma_box_shared)[i] =
        (int)y < p.tap_rows ? (((int)y * b.box_columns + x) * (int)p.runs.divisor + piece) * CHUNK : 0;
  }
}

template <int NI>
static __device__ inline void copy_weights(const NitiMmaBox &b, uint32_t shared) {
  const NitiMmaPass &p = b.pass;
  const int chunks = (int)b.chunks.divisor, bytes = p.tap_rows * p.tap_columns * p.ic;
  for (int i = (int)threadIdx.x; i < b.w_rows * chunks; i += THREADS) {
    const int row = (int)niti_divide(b.chunks, (uint32_t)i), at = (i - row * chunks) * CHUNK, channel = niti_mma_column<NI>(row);
    niti_copy16(shared + b.w_from + row * b.w_pitch + at, p.w + (int64_t)channel * bytes + at, channel < p.oc && at < bytes);
  }
}

/* The tap of the weights that is tap `tap` of the pass. */
static __device__ inline int weights_tap(const NitiMmaBox &b, uint32_t tap) {
  const uint32_t y = niti_divide(b.pass.taps, tap), x = tap - y * b.pass.taps.divisor;
  return (b.tap_y.last - (int)y * b.tap_y.step) * b.kernel_columns + b.tap_x.last - (int)x * b.tap_x.step;
}

/* Four channels of four filters at one tap. */
struct Quad {
  uint32_t words[4];
  int channel, to; /* the first channel; where a row of shared memory has the filters */
};

static __device__ inline Quad load_quad(const NitiMmaBox &b, uint32_t item) {
  const uint32_t rest = niti_divide(b.quads, item), fours = niti_divide(b.tap_count, rest);
  const uint32_t tap = rest - fours * b.tap_count.divisor;
  Quad q;
  q.channel = (int)(item - rest * b.quads.divisor) * 4;
  q.to = (int)(tap * (uint32_t)b.pass.ic + fours * 4);
  const int8_t *from = b.pass.w + ((int64_t)fours * 4 * b.taps + weights_tap(b, tap)) * b.pass.oc + q.channel;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const bool there = q.channel < b.pass.oc && (int)fours * 4 + k < b.filters;
    q.words[k] = there ? __ldg((const uint32_t *)(from + (int64_t)k * b.taps * b.pass.oc)) : 0;
  }
  return q;
}

template <int NI>
static __device__ inline void store_quad(const NitiMmaBox &b, const Quad &q) {
  const uint32_t low = niti_permute(q.words[0], q.words[1], 0x5140), high = niti_permute(q.words[0], q.words[1], 0x7362);
  const uint32_t low2 = niti_permute(q.words[2], q.words[3], 0x5140), high2 = niti_permute(q.words[2], q.words[3], 0x7362);
  uint8_t *to = niti_mma_box_shared + b.w_from + row_of<NI>(q.channel) * b.w_pitch + q.to;
  const int pair = (row_of<NI>(2) - row_of<NI>(0)) * b.w_pitch; /* NI is at least 2, so four channels are two pairs of rows */
  *(uint32_t *)to = niti_permute(low, low2, 0x5410);
  *(uint32_t *)(to + b.w_pitch) = niti_permute(low, low2, 0x7632);
  *(uint32_t *)(to + pair) = niti_permute(high, high2, 0x5410);
  *(uint32_t *)(to + pair + b.w_pitch) = niti_permute(high, high2, 0x7632);
}

template <int NI>
static __device__ inline void transpose_weights(const NitiMmaBox &b) {
  const NitiMmaPass &p = b.pass;
  const uint32_t bytes = (uint32_t)(p.tap_rows * p.tap_columns * p.ic), items = b.quads.divisor * (bytes / 4);
  if (p.oc % 4 == 0) {
    for (uint32_t first = threadIdx.x; first < items; first += TRANSPOSES * THREADS) {
      Quad quads[TRANSPOSES]; /* all loads before their first use */
#pragma unroll
      for (uint32_t i = 0; i < TRANSPOSES; ++i) quads[i] = load_quad(b, min(first + i * THREADS, items - 1));
#pragma unroll
      for (uint32_t i = 0; i < TRANSPOSES; ++i) store_quad<NI>(b, quads[i]);
    }
  } else {
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < 16 * items; i += THREADS) {
      const uint32_t row = i / bytes, at = i - row * bytes, tap = at / (uint32_t)p.ic, filter = at - tap * (uint32_t)p.ic;
      const int channel = niti_mma_column<NI>((int)row);
      const int8_t *from = p.w + ((int64_t)filter * b.taps + weights_tap(b, tap)) * p.oc + channel;
      const bool there = channel < p.oc && (int)filter < b.filters;
      niti_mma_box_shared[b.w_from + row * (uint32_t)b.w_pitch + at] = there ? __ldg((const uint8_t *)from) : 0;
    }
  }
  if (bytes % (2 * CHUNK) == 0) return;
  for (int row = (int)threadIdx.x; row < b.w_rows; row += THREADS)
    *(uint4 *)(niti_mma_box_shared + b.w_from + row * b.w_pitch + bytes) = make_uint4(0, 0, 0, 0);
}

/* A tile: its first image and pixel, and how many pixels it has. */
struct Tile {
  int image, y, x, count;
  bool last; /* of its row of tiles */
};

static __device__ inline Tile tile_at(const NitiMmaBox &b, uint32_t number) {
  const uint32_t block = niti_divide(b.image_tiles, number), rest = number - block * b.image_tiles.divisor;
  const uint32_t down = niti_divide(b.across, rest), across = rest - down * b.across.divisor;
  Tile t;
  t.image = (int)block * IMAGES;
  t.y = (int)down * b.height;
  t.x = (int)across * b.width;
  t.last = across + 1 == b.across.divisor;
  t.count = min(b.height, b.pass.jh - t.y) * (int)(t.last ? b.last.divisor : b.whole.divisor);
  return t;
}

static __device__ inline void copy_box(const NitiMmaBox &b, const Tile &t, uint32_t shared) {
  const NitiMmaPass &p = b.pass;
  const int y0 = t.y * p.step_y + p.tap_y, x0 = (t.x * p.step_x + p.tap_x) * p.ic; /* x0: bytes */
  const int chunks = (int)b.row_chunks.divisor, all = IMAGES * b.box_rows * chunks;
#pragma unroll 4
  for (int i = (int)threadIdx.x; i < all; i += THREADS) {
    const int line = (int)niti_divide(b.row_chunks, (uint32_t)i), at = (i - line * chunks) * CHUNK;
    const int image = (int)niti_divide(b.rows, (uint32_t)line), row = line - image * b.box_rows;
    const int y = y0 + row, x = x0 + at;
    const bool there = t.image + image < p.n && (uint32_t)y < (uint32_t)p.ih && (uint32_t)x < (uint32_t)p.in_row;
    niti_copy16(shared + b.box_from + image * b.image_pitch + row * chunks * CHUNK + at,
                p.in + (t.image + image) * p.in_image + ((int64_t)y * p.in_row + x), there);
  }
}

/* MI pixels and NI * 8 channels of a tile. Returns the largest |accumulator|. */
template <int MI, int NI>
static __device__ __forceinline__ uint32_t multiply(const NitiMmaBox &b, const Tile &t, const Images &images, uint32_t unit,
                                                    uint32_t shared, int shift) {
  const NitiMmaPass &p = b.pass;
  const int lane = threadIdx.x % 32;
  const uint32_t group = niti_divide(b.column_groups, unit);
  const int across = (int)(unit - group * b.column_groups.divisor) * (NI * 8), column = across + lane % 4 * (2 * NI);
  Spots<MI> spots;
  spots.images = images;
  uint32_t a_from[MI];
#pragma unroll
  for (int mi = 0; mi < MI; ++mi) {
    const int pixel = min((int)group * MI + mi, t.count - 1); /* a pixel may be computed twice */
    const int y = (int)niti_divide(t.last ? b.last : b.whole, (uint32_t)pixel);
    const int x = pixel - y * (int)(t.last ? b.last.divisor : b.whole.divisor);
    spots.at[mi] = (uint32_t)((t.y + y) * (int32_t)p.out_row + (t.x + x) * (int32_t)p.out_pixel);
    a_from[mi] = shared + b.box_from + (lane & 15) * b.image_pitch + (y * p.step_y * b.box_columns + x * p.step_x) * p.ic;
  }
  uint32_t mask[MI][2][NI / 2];
  if (p.mask) niti_mma_load_mask<MI, NI>(p, mask, spots, column); /* long before its use */
  int acc[MI][NI][4];
#pragma unroll
  for (int i = 0; i < MI * NI * 4; ++i) acc[i / (NI * 4)][i / 4 % NI][i % 4] = 0;
  uint32_t b_from = shared + b.w_from + (across + (lane & 7) + (lane >> 4 << 3)) * b.w_pitch + (lane >> 3 & 1) * CHUNK;
  const int *offsets = (const int *)niti_mma_box_shared + (lane >> 4);
  int offset = *offsets;
#pragma unroll 2
  for (int step = 0; step < b.steps; ++step) {
    uint32_t a[MI][4], w[NI / 2][4];
    offsets += 2;
    const int next = *offsets;
#pragma unroll
    for (int mi = 0; mi < MI; ++mi) niti_load_matrices(a[mi], a_from[mi] + offset);
#pragma unroll
    for (int j = 0; j < NI / 2; ++j) niti_load_matrices(w[j], b_from + j * 16 * b.w_pitch);
    niti_mma_all<MI, NI>(acc, a, w);
    b_from += 2 * CHUNK;
    offset = next;
  }
#pragma unroll
  for (int mi = 0; mi < MI; ++mi) asm("" : "+r"(spots.at[mi])); /* lest addresses wait in registers all the while */
  if (p.rq.bias) niti_mma_add_bias<MI, NI>(p, acc, spots, column);
  uint32_t largest = niti_mma_largest<MI, NI>(acc);
  asm volatile("" : "+r"(largest), "+r"(shift)); /* before rounding, so that accumulators need not wait */
  shift = settle_where_needed<MI, NI>(p, acc, spots, column, shift);
  niti_mma_store<MI, NI, true>(p, acc, mask, spots, column, shift);
  return largest;
}

/* Up to COUNT passes: arguments of thousands of bytes make a launch in a recorded step slow. */
template <int COUNT>
struct Boxes {
  NitiMmaBox box[COUNT];
  uint32_t from[COUNT]; /* the first tile of each; past the last: tiles */
  uint32_t tiles;
};

template <int MI, int NI, int BLOCKS, int COUNT>
static __global__ void __launch_bounds__(THREADS, BLOCKS) boxes(const __grid_constant__ Boxes<COUNT> all, const bool second) {
  niti_kernel_begin();
  int shift;
  if (!niti_mma_begin(all.box[0].pass, second, &shift)) return;
  __shared__ uint32_t maxima[WARPS];
  const uint32_t shared = niti_shared_address(niti_mma_box_shared), warp = threadIdx.x / 32;
  uint32_t largest = 0;
  int loaded = -1;
  for (uint32_t number = blockIdx.x; number < all.tiles; number += gridDim.x) {
    int phase = 0;
#pragma unroll
    for (int i = 1; i < COUNT; ++i) phase += number >= all.from[i];
    const NitiMmaBox &b = all.box[COUNT > 1 ? phase : 0];
    const Tile tile = tile_at(b, number - (COUNT > 1 ? all.from[phase] : 0));
    __syncthreads(); /* the box before has been read */
    copy_box(b, tile, shared);
    if (phase != loaded) {
      make_table(b);
      if (b.transposed)
        transpose_weights<NI>(b);
      else
        copy_weights<NI>(b, shared);
      loaded = phase;
    }
    niti_copy_commit();
    niti_copy_wait<0>();
    __syncthreads();
    const uint32_t units = (uint32_t)((tile.count + MI - 1) / MI) * b.column_groups.divisor;
    const Images images = images_of(b.pass, tile.image);
    for (uint32_t unit = warp; unit < units; unit += WARPS) {
      const uint32_t max = multiply<MI, NI>(b, tile, images, unit, shared, shift);
      largest = max > largest ? max : largest;
    }
  }
  if (!second) { /* one atomic a block */
    largest = __reduce_max_sync(0xffffffffu, largest);
    if (threadIdx.x % 32 == 0) maxima[warp] = largest;
    __syncthreads();
    if (warp == 0) niti_range_raise(all.box[0].pass.rq, threadIdx.x < WARPS ? maxima[threadIdx.x] : 0);
    return;
  }
  __syncthreads();
  if (threadIdx.x == 0) niti_range_end(all.box[0].pass.rq, all.box[0].pass.second_blocks);
}

/* ---- host ---- */

template <int COUNT>
using Kernel = void (*)(Boxes<COUNT>, bool);
struct Variant {
  Kernel<1> one;
  Kernel<NITI_MMA_PHASES> phased;
  int pixels, columns, blocks; /* of a warp's unit; blocks of threads of a multiprocessor */
};

template <int MI, int NI, int BLOCKS>
static Variant variant() {
  return Variant{boxes<MI, NI, BLOCKS, 1>, boxes<MI, NI, BLOCKS, NITI_MMA_PHASES>, MI, NI * 8, BLOCKS};
}

static Variant variant_for(int oc) { return oc > 16 && oc % 8 == 0 ? variant<2, 4, 2>() : variant<4, 2, 2>(); }

/* The parts, as equal as can be, into which `all` falls where none shall be longer than `most`: their length. */
static int part_of(int all, int most) {
  const int parts = (all + most - 1) / most;
  return (all + parts - 1) / parts;
}

static int parts_of(int all, int part) { return (all + part - 1) / part; }

/* Everything that follows from a tile's size. False: shared memory is too small. */
static bool lay_out(NitiMmaBox *b, const Variant &v, int height, int width) {
  const NitiMmaPass &p = b->pass;
  const int cells = p.tap_rows * p.tap_columns, bytes = cells * p.ic, groups = parts_of(p.oc, v.columns);
  b->height = height, b->width = width;
  b->box_rows = cells > 0 ? (height - 1) * p.step_y + p.tap_rows : 0;
  b->box_columns = cells > 0 ? (width - 1) * p.step_x + p.tap_columns : 0;
  b->steps = parts_of(bytes, 2 * CHUNK);
  b->w_rows = groups * v.columns;
  b->w_pitch = (2 * b->steps + 1) * CHUNK;
  const int64_t image = (int64_t)b->box_rows * b->box_columns * p.ic, pitch = image / CHUNK % 2 == 0 ? image + CHUNK : image;
  b->w_from = (uint32_t)parts_of((2 * b->steps + 2) * (int)sizeof(int), CHUNK) * CHUNK;
  const int64_t box_from = b->w_from + (int64_t)b->w_rows * b->w_pitch;
  if (box_from + pitch * IMAGES > SHARED_MOST) return false;
  b->image_pitch = (int32_t)pitch;
  b->box_from = (uint32_t)box_from;
  return true;
}

static int shared_of(const NitiMmaBox &b) { return (int)b.box_from + b.image_pitch * IMAGES; }

static uint32_t tiles_of(const NitiMmaBox &b) {
  const NitiMmaPass &p = b.pass;
  return (uint32_t)parts_of(p.n, IMAGES) * (uint32_t)parts_of(p.jh, b.height) * (uint32_t)parts_of(p.jw, b.width);
}

/* Picoseconds of all tiles: what a multiprocessor's have to do, or what one warp of each that is resident does in turn; and
 * waiting for the first copies. */
static int64_t tiles_time(const NitiMmaBox &b, const Variant &v, int multiprocessors) {
  const int64_t fit = SHARED_ALL / (shared_of(b) + 1024), resident = fit < v.blocks ? fit : v.blocks;
  const int64_t each = parts_of((int)tiles_of(b), multiprocessors), rounds = (each + resident - 1) / resident;
  const int64_t units = parts_of(b.height * b.width, v.pixels) * (int64_t)(b.w_rows / v.columns);
  const int64_t copies = (each < resident ? each : resident) * b.w_rows * b.w_pitch + each * IMAGES * b.image_pitch;
  const int64_t work = copies * 12 + each * units * (70000 + 5000 * b.steps);
  const int64_t chain = rounds * ((units + WARPS - 1) / WARPS) * (350000 + 60000 * b.steps);
  return 1000000 * rounds + (work > chain ? work : chain);
}

/* Tiles so that passes take the least time, as expected: INT64_MAX: there are none. */
static int64_t plan(NitiMmaBox *b, const NitiMmaPass *p, const Variant &v, int multiprocessors) {
  int64_t least = INT64_MAX;
  NitiMmaBox tried = {};
  tried.pass = *p;
  for (int rows = 1; rows < 2 * p->jh && rows <= 32; rows *= 2) {
    for (int columns = 1; columns < 2 * p->jw && columns <= 32; columns *= 2) {
      if (!lay_out(&tried, v, part_of(p->jh, rows), part_of(p->jw, columns))) continue;
      const int64_t time = tiles_time(tried, v, multiprocessors);
      if (time < least) least = time, *b = tried;
    }
  }
  return least;
}

bool niti_mma_box_serves(const NitiMmaPass *p) {
  NitiMmaBox b = {};
  b.pass = *p;
  return p->ic % 16 == 0 && lay_out(&b, variant_for(p->oc), 1, 1);
}

int64_t niti_mma_box_time(const NitiMmaPass *passes, int count, int multiprocessors) {
  int64_t time = 4800000;
  for (int i = 0; i < count; ++i) {
    NitiMmaBox b;
    const int64_t tiles = passes[i].ic % 16 == 0 ? plan(&b, &passes[i], variant_for(passes[i].oc), multiprocessors) : INT64_MAX;
    if (tiles == INT64_MAX) return INT64_MAX;
    time += tiles;
  }
  return time;
}

/* What the kernel divides by. */
static void complete(NitiMmaBox *b, const Variant &v) {
  const NitiMmaPass &p = b->pass;
  const int cells = p.tap_rows * p.tap_columns, across = parts_of(p.jw, b->width), down = parts_of(p.jh, b->height);
  const auto divisor = [](int d) { return niti_divisor((uint32_t)(d > 0 ? d : 1)); };
  b->quads = divisor(b->w_rows / 4);
  b->tap_count = divisor(cells);
  b->chunks = divisor(2 * b->steps);
  b->row_chunks = divisor(b->box_columns * p.ic / CHUNK);
  b->rows = divisor(b->box_rows);
  b->whole = divisor(b->width);
  b->last = divisor(p.jw - (across - 1) * b->width);
  b->image_tiles = divisor(across * down);
  b->across = divisor(across);
  b->column_groups = divisor(b->w_rows / v.columns);
}

/* Places a box among the others, those with long sums first, so that the last tiles to end are short. */
template <int COUNT>
static void insert(Boxes<COUNT> *all, int count, const NitiMmaBox &b) {
  int i = count;
  for (; i > 0 && i < COUNT && all->box[i - 1].steps < b.steps; --i) all->box[i] = all->box[i - 1];
  all->box[i % COUNT] = b;
}

template <int COUNT>
static void run(NitiCuda *cuda, Kernel<COUNT> mma_box, const Variant &v, const NitiMmaPass *passes, const NitiMmaBoxTaps *taps,
                int count, const NitiConv *s, int32_t filters) {
  Boxes<COUNT> all = {};
  int shared = 0;
  for (int i = 0; i < count; ++i) {
    NitiMmaBox b;
    if (plan(&b, &passes[i], v, cuda->multiprocessors) == INT64_MAX) return; /* niti_mma_box_serves said otherwise */
    b.pass.image_bits = 4;
    b.transposed = taps != NULL;
    if (taps) b.tap_y = taps[i].y, b.tap_x = taps[i].x;
    b.kernel_columns = s->kw, b.taps = s->kh * s->kw;
    b.filters = filters;
    complete(&b, v);
    shared = shared_of(b) > shared ? shared_of(b) : shared;
    insert(&all, i, b);
  }
  for (int i = 0; i < COUNT; ++i) {
    all.from[i] = all.tiles;
    if (i < count) all.tiles += tiles_of(all.box[i]);
  }
  const int fit = SHARED_ALL / (shared + 1024), resident = cuda->multiprocessors * (fit < v.blocks ? fit : v.blocks);
  const unsigned grid = all.tiles < (uint32_t)resident ? all.tiles : (unsigned)resident;
  for (int i = 0; i < count; ++i) all.box[i].pass.second_blocks = grid;
  niti_cuda_note(
      cuda, niti_cuda_runtime.cudaFuncSetAttribute((const void *)mma_box, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
      "mma_box: shared memory");
  niti_cuda_note(cuda,
                 niti_cuda_runtime.cudaFuncSetAttribute((const void *)mma_box, cudaFuncAttributePreferredSharedMemoryCarveout,
                                                        cudaSharedmemCarveoutMaxShared),
                 "mma_box: shared memory");
  NITI_LAUNCH(cuda, mma_box, grid, THREADS, (size_t)shared, all, false);
  niti_cuda_share_range(cuda);
  NITI_LAUNCH(cuda, mma_box, grid, THREADS, (size_t)shared, all, true);
}

void niti_mma_box(NitiCuda *cuda, const NitiMmaPass *passes, const NitiMmaBoxTaps *taps, int count, const NitiConv *s,
                  int32_t filters) {
  const Variant v = variant_for(passes->oc);
  if (count > 1)
    run<NITI_MMA_PHASES>(cuda, v.phased, v, passes, taps, count, s, filters);
  else
    run<1>(cuda, v.one, v, passes, taps, count, s, filters);
}
