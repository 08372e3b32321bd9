/* Convolution forward, and backward to the input, with mma.sync: implicit GEMM over tiles of up to 128 output pixels times 128
 * output channels.
 *
 * Four warps copy slices of the sum (64 bytes of input channels and taps for every row and column) into a ring of stages in
 * shared memory, some stages ahead of the one they multiply. Where input channels are a multiple of 16, copies are asynchronous
 * and put zeros in place of the border; else each thread gathers its 16 bytes with the help of a table. */
#include "backend/cuda/meet.cuh"
#include "backend/cuda/mma_finish.cuh"

/* A gathering thread waits for its bytes: more than one stage ahead gains nothing. */
static __host__ __device__ constexpr int stages_of(int run) { return run == NITI_MMA_GATHER_RUN ? 2 : 4; }

NITI_DYNAMIC_SHARED(niti_mma_shared);

/* A place in the sum: tap and input channel. */
struct Cell {
  int y, x, channel;
};

static __device__ inline Cell cell_at(const NitiMmaPass &p, uint32_t bytes) {
  uint32_t rest = bytes / 8;
  const uint32_t y = niti_divide(p.sum_rows, rest);
  rest -= y * p.sum_rows.divisor;
  const uint32_t group = niti_divide(p.sum_groups, rest);
  rest -= group * p.sum_groups.divisor;
  const uint32_t x = niti_divide(p.sum_cells, rest);
  rest -= x * p.sum_cells.divisor;
  return Cell{(int)y, (int)x, (int)(group * p.group + rest * 8)};
}

static __device__ inline NitiMmaEntry entry_at(const NitiMmaPass &p, int i) {
  const uint2 entry = __ldg((const uint2 *)(p.table + i));
  return NitiMmaEntry{(int32_t)entry.x, (uint16_t)entry.y, (uint16_t)(entry.y >> 16)};
}

/* 16 bytes of the flattened sum of each of a thread's windows, from position `from` of the table on. Beyond the sum the weights
 * are 0, so what is read there does not matter. */
template <int ROWS>
static __device__ inline void gather(uint4 (&to)[ROWS], const NitiMmaPass &p, const NitiMmaWindow (&windows)[ROWS], int from) {
  uint32_t words[ROWS][4];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
#pragma unroll
    for (int w = 0; w < 4; ++w) words[r][w] = 0;
  }
  if (p.by_words) {
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const NitiMmaEntry entry = entry_at(p, from + 4 * w);
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        if (niti_mma_inside(p, windows[r], entry.tap_y, entry.tap_x))
          words[r][w] = __ldg((const uint32_t *)(windows[r].at + entry.offset));
      }
    }
  } else {
#pragma unroll
    for (int b = 0; b < 16; ++b) {
      const NitiMmaEntry entry = entry_at(p, from + b);
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        uint32_t byte = 0;
        if (niti_mma_inside(p, windows[r], entry.tap_y, entry.tap_x))
          byte = __ldg((const uint8_t *)(windows[r].at + entry.offset));
        words[r][b / 4] = niti_permute(words[r][b / 4], byte,
                                       b % 4 == 0   ? 0x3214
                                       : b % 4 == 1 ? 0x3240
                                       : b % 4 == 2 ? 0x3410
                                                    : 0x4210);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < ROWS; ++r) to[r] = make_uint4(words[r][0], words[r][1], words[r][2], words[r][3]);
}

/* row: of the tile, the thread's first (its warp's + lane / 4); the others follow 8 apart. column: of the output, its first.
 * scratch: an int for each of the block's accumulators, where it has its operands. Whole blocks call it. */
template <int MI, int NI>
static __device__ __forceinline__ void finish(const NitiMmaPass &p, int (&acc)[MI][NI][4], uint32_t first, int row, int column,
                                              int shift, bool second, uint32_t seen, int *scratch) {
  const auto spots = [&](int r) {
    const NitiMmaPlace place = niti_mma_place(p, first, row + (p.image_bits == 0 ? r : r / 2 * 2) * 8);
    const int image = p.image_bits == 0 ? place.image : place.image + r % 2 * 8, block = image / NITI_BLOCK_IMAGES;
    return NitiMmaSpot{image < p.n, image * p.out_image, niti_mma_out(p, place), block * NITI_BLOCK_IMAGES < p.n,
                       block * p.out_image};
  };
  if (p.rq.bias) niti_mma_add_bias<MI, NI>(p, acc, spots, column);
  if (p.meets)
    shift = niti_meet_all(p.rq, niti_mma_largest<MI, NI>(acc));
  else if (!second)
    niti_mma_raise(p, niti_mma_largest<MI, NI>(acc), seen);
  if (niti_mma_unsettled<NI>(p, shift)) {
    __syncthreads(); /* the block has read its operands */
    niti_mma_settle<MI, NI>(p, acc, spots, column, shift, scratch + threadIdx.x, NITI_MMA_THREADS);
    shift = 1;
  }
  uint32_t mask[MI][2][NI / 2];
  if (p.mask) niti_mma_load_mask<MI, NI>(p, mask, spots, column); /* all before their first use */
  niti_mma_store<MI, NI, false>(p, acc, mask, spots, column, shift);
}

/* A tile of WARPS_M * MI * 16 rows and WARPS_N * NI * 8 columns; stages of RUN bytes. A row of a stage is in shared memory as
 * RUN / 16 chunks, swizzled so that 8 neighbouring rows' chunks are in different banks. */
template <int WARPS_M, int WARPS_N, int MI, int NI, int RUN>
static __device__ __forceinline__ void one_tile(const NitiMmaPass &p, uint32_t tile, int shift, bool second) {
  constexpr bool GATHER = RUN == NITI_MMA_GATHER_RUN;
  constexpr int STAGES = stages_of(RUN), ROWS = WARPS_M * MI * 16, COLUMNS = WARPS_N * NI * 8;
  constexpr int CHUNKS = RUN / 16, AT_ONCE = NITI_MMA_THREADS / CHUNKS; /* rows that the block's threads copy a chunk each of */
  constexpr int MY_ROWS = ROWS / AT_ONCE, MY_COLUMNS = (COLUMNS + AT_ONCE - 1) / AT_ONCE;
  constexpr uint32_t STAGE = (ROWS + COLUMNS) * RUN;
  static_assert(WARPS_M * WARPS_N * 32 == NITI_MMA_THREADS && ROWS % AT_ONCE == 0, "tile");

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_m = warp % WARPS_M, warp_n = warp / WARPS_M;
  const uint32_t shared = niti_shared_address(niti_mma_shared);
  /* Where this thread copies to, and where its lane's row of the operands' 8x16-byte matrices is. */
  const int my_row = threadIdx.x / CHUNKS, my_chunk = threadIdx.x % CHUNKS;
  const uint32_t copy_to = my_row * RUN + ((my_chunk ^ (my_row * RUN / 128 & (CHUNKS - 1))) << 4);
  const int a_row = lane & 15, b_row = (lane & 7) + (lane >> 4 << 3);
  const uint32_t a_from = (warp_m * MI * 16 + a_row) * RUN + (((lane >> 4) ^ (a_row * RUN / 128 & (CHUNKS - 1))) << 4);
  const uint32_t b_from = (ROWS + warp_n * NI * 8 + b_row) * RUN + (((lane >> 3 & 1) ^ (b_row * RUN / 128 & (CHUNKS - 1))) << 4);
  const int steps = GATHER ? (int)(p.w_pitch / RUN) : (p.tap_rows * p.tap_columns * p.ic + RUN - 1) / RUN;

  const uint32_t down = niti_divide(p.tiles_across, tile);
  const int across = (int)(tile - down * p.tiles_across.divisor) * COLUMNS;
  const uint32_t first = down * ((uint32_t)ROWS >> p.image_bits);
  const uint32_t seen = niti_mma_seen(p);
  NitiMmaWindow windows[MY_ROWS];
#pragma unroll
  for (int i = 0; i < MY_ROWS; ++i) {
    windows[i] = niti_mma_window(p, first, my_row + i * AT_ONCE);
    asm("" : "+l"(windows[i].at), "+r"(windows[i].y), "+r"(windows[i].x)); /* lest the compiler compute them in every step */
  }
  const int my_column = across + niti_mma_column<NI>(my_row);
  const int8_t *my_weights = p.w + my_column * p.w_pitch;

  /* Rows and columns of one stage; past the end of the sum zeros. */
  const auto copy_rows = [&](int step, uint32_t stage) {
    if (GATHER) {
      if (step >= steps) return;
      uint4 chunks[MY_ROWS];
      gather<MY_ROWS>(chunks, p, windows, step * RUN + my_chunk * 16);
#pragma unroll
      for (int i = 0; i < MY_ROWS; ++i) {
        *(uint4 *)(niti_mma_shared + stage * STAGE + copy_to + i * AT_ONCE * RUN) = chunks[i];
      }
      return;
    }
    const Cell cell = cell_at(p, step * RUN + my_chunk * 16);
    const int from = cell.y * p.in_row + cell.x * p.ic + cell.channel;
#pragma unroll
    for (int i = 0; i < MY_ROWS; ++i) {
      niti_copy16(shared + stage * STAGE + copy_to + i * AT_ONCE * RUN, windows[i].at + from,
                  cell.y < p.tap_rows && niti_mma_inside(p, windows[i], cell.y, cell.x));
    }
  };
  const auto copy_columns = [&](int step, uint32_t stage) {
    const int at = step * RUN + my_chunk * 16;
    const Cell cell = GATHER ? Cell{0, 0, at} : cell_at(p, at);
    const bool there = GATHER ? step < steps : cell.y < p.tap_rows;
    const int8_t *from = my_weights + ((cell.y * p.tap_columns + cell.x) * p.ic + cell.channel);
#pragma unroll
    for (int i = 0; i < MY_COLUMNS; ++i) {
      if (COLUMNS % AT_ONCE != 0 && my_row + i * AT_ONCE >= COLUMNS) break;
      const int more = niti_mma_column<NI>(i * AT_ONCE);
      niti_copy16(shared + stage * STAGE + copy_to + (ROWS + i * AT_ONCE) * RUN, from + more * (int)p.w_pitch,
                  there && my_column + more < p.oc);
    }
  };

  int acc[MI][NI][4];
#pragma unroll
  for (int i = 0; i < MI * NI * 4; ++i) acc[i / (NI * 4)][i / 4 % NI][i % 4] = 0;
#pragma unroll
  for (int s = 0; s < STAGES - 1; ++s) {
    copy_rows(s, s);
    copy_columns(s, s);
    niti_copy_commit();
  }
  uint32_t stage = 0, next = STAGES - 1;
  for (int step = 0; step < steps; ++step) {
    niti_copy_wait<STAGES - 2>();
    __syncthreads(); /* this stage is there, and the one before has been read */
    const uint32_t base = shared + stage * STAGE;
#pragma unroll
    for (int k = 0; k < RUN / 32; ++k) {
      uint32_t a[MI][4], b[NI / 2][4];
#pragma unroll
      for (int mi = 0; mi < MI; ++mi) niti_load_matrices(a[mi], base + mi * 16 * RUN + (a_from ^ (k * 32)));
#pragma unroll
      for (int j = 0; j < NI / 2; ++j) niti_load_matrices(b[j], base + j * 16 * RUN + (b_from ^ (k * 32)));
      if (k == 0) copy_rows(step + STAGES - 1, next); /* among the products */
      if (k == RUN / 32 - 1) copy_columns(step + STAGES - 1, next);
      niti_mma_all<MI, NI>(acc, a, b);
    }
    niti_copy_commit();
    stage = stage + 1 == STAGES ? 0 : stage + 1;
    next = next + 1 == STAGES ? 0 : next + 1;
  }
  niti_copy_wait<0>();
  finish<MI, NI>(p, acc, first, warp_m * MI * 16 + lane / 4, across + warp_n * NI * 8 + lane % 4 * (2 * NI), shift, second, seen,
                 (int *)niti_mma_shared);
  __syncthreads(); /* the stages are free */
}

template <int WARPS_M, int WARPS_N, int MI, int NI, int RUN, int BLOCKS>
static __global__ void __launch_bounds__(NITI_MMA_THREADS, BLOCKS)
    tiled(const __grid_constant__ NitiMmaPass p, const bool second) {
  niti_kernel_begin();
  int shift;
  if (!niti_mma_begin(p, second, &shift)) return;
  for (uint32_t tile = blockIdx.x; tile < p.tiles; tile += gridDim.x)
    one_tile<WARPS_M, WARPS_N, MI, NI, RUN>(p, tile, shift, second);
  if (second && threadIdx.x == 0) niti_range_end(p.rq, p.second_blocks);
}

/* Several passes of one operation, their tiles one after the other. */
template <int WARPS_M, int WARPS_N, int MI, int NI, int RUN, int BLOCKS>
static __global__ void __launch_bounds__(NITI_MMA_THREADS, BLOCKS)
    phased(const __grid_constant__ NitiMmaPhases phases, const bool second) {
  niti_kernel_begin();
  int shift;
  if (!niti_mma_begin(phases.pass[0], second, &shift)) return;
  for (uint32_t tile = blockIdx.x; tile < phases.tiles; tile += gridDim.x) {
    int phase = 0;
#pragma unroll
    for (int i = 1; i < NITI_MMA_PHASES; ++i) phase += tile >= phases.from[i];
    one_tile<WARPS_M, WARPS_N, MI, NI, RUN>(phases.pass[phase], tile - phases.from[phase], shift, second);
  }
  if (second && threadIdx.x == 0) niti_range_end(phases.pass[0].rq, phases.pass[0].second_blocks);
}

/* There is none of a gathering kernel. */
template <int WARPS_M, int WARPS_N, int MI, int NI, int RUN, int BLOCKS>
struct Phased {
  static NitiMmaPhasedKernel kernel() { return phased<WARPS_M, WARPS_N, MI, NI, RUN, BLOCKS>; }
};
template <int WARPS_M, int WARPS_N, int MI, int NI, int BLOCKS>
struct Phased<WARPS_M, WARPS_N, MI, NI, NITI_MMA_GATHER_RUN, BLOCKS> {
  static NitiMmaPhasedKernel kernel() { return NULL; }
};

template <int WARPS_M, int WARPS_N, int MI, int NI, int RUN, int BLOCKS>
static NitiMmaVariant variant() {
  const int rows = WARPS_M * MI * 16, columns = WARPS_N * NI * 8;
  const int stages = stages_of(RUN) * (rows + columns) * RUN, scratch = rows * columns * 4;
  return NitiMmaVariant{tiled<WARPS_M, WARPS_N, MI, NI, RUN, BLOCKS>,
                        Phased<WARPS_M, WARPS_N, MI, NI, RUN, BLOCKS>::kernel(),
                        rows,
                        columns,
                        NITI_MMA_THREADS,
                        stages > scratch ? stages : scratch,
                        BLOCKS,
                        false};
}

/* A thread's columns are all inside the tensor or all outside it, except in the narrowest tiles. */
bool niti_mma_tiles(int oc, int columns) {
  return columns == 16 || (columns == 32 && oc % 8 == 0) || ((columns == 64 || columns == 128) && oc % 16 == 0);
}

static int columns_for(int oc) {
  if (oc % 16 == 0 && oc > 32) {
    const int wide = (oc + 127) / 128 * 128, narrow = (oc + 63) / 64 * 64;
    return wide > narrow + narrow / 5 ? 64 : 128;
  }
  return oc % 8 == 0 && oc > 16 ? 32 : 16;
}

NitiMmaVariant niti_mma_tiled(int oc, bool gather, int columns) {
  switch (columns > 0 ? columns : columns_for(oc)) {
    case 128: return gather ? variant<2, 2, 2, 8, NITI_MMA_GATHER_RUN, 3>() : variant<2, 2, 4, 8, NITI_MMA_RUN, 2>();
    case 64: return gather ? variant<4, 1, 2, 8, NITI_MMA_GATHER_RUN, 3>() : variant<4, 1, 2, 8, NITI_MMA_RUN, 3>();
    case 32: return gather ? variant<4, 1, 2, 4, NITI_MMA_GATHER_RUN, 3>() : variant<4, 1, 2, 4, NITI_MMA_RUN, 4>();
    default: return gather ? variant<4, 1, 2, 2, NITI_MMA_GATHER_RUN, 3>() : variant<4, 1, 2, 2, NITI_MMA_RUN, 4>();
  }
}
