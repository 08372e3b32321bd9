/* Packs weights: each block has 64 filters by 64 channels of one tap of one convolution, or as many bytes. */
#include "backend/cuda/finish.cuh"
#include "backend/cuda/mma.cuh"
#include "backend/cuda/pack.h"
#include "backend/cuda/tensors.cuh"
#include "backend/cuda/wgmma.h"

enum {
  THREADS = 256,
  RUN = 16,             /* bytes of a thread, of neighbouring channels or filters */
  SIDE = 64,            /* channels, and filters, of a block */
  PART = RUN * THREADS, /* bytes of a block */
};

/* By value to the kernel. */
typedef struct Packs {
  int count;
  NitiPack all[NITI_PACKS];
} Packs;

static_assert(sizeof(Packs) <= NITI_ARGUMENTS_SMALL, "a kernel's arguments");
static_assert(SIDE * SIDE == PART && (int)SIDE == (int)NITI_WGMMA_CHUNK && NITI_WGMMA_CHANNELS % SIDE == 0,
              "a block's share of a tile");

/* Bytes 16 run .. 16 run + 15 of channel o in a tile: in its row as wgmma swizzles rows of 64 bytes. */
static __device__ inline size_t tile_offset(int o, int run) {
  const int at = niti_finish_column(o % NITI_WGMMA_CHANNELS) * NITI_WGMMA_CHUNK + run * RUN;
  return (size_t)(at ^ (at >> 7 & (NITI_WGMMA_CHUNK / RUN - 1)) << 4);
}

static __device__ inline int8_t *tile_of(const NitiPack &p, int o, int in, int sum, int tap) {
  const int chunks = (sum + NITI_WGMMA_CHUNK - 1) / NITI_WGMMA_CHUNK;
  const size_t block = (size_t)(o / NITI_WGMMA_CHANNELS) * (size_t)chunks + (size_t)(in / NITI_WGMMA_CHUNK);
  return p.to + (block * (size_t)(p.y.count * p.x.count) + (size_t)tap) * (NITI_WGMMA_CHANNELS * NITI_WGMMA_CHUNK);
}

/* 16 channels of filter k's tap from channel c on; zeros beyond the last of either. */
static __device__ inline uint4 load_run(const NitiPack &p, int tap, int k, int c) {
  uint32_t word[4] = {0, 0, 0, 0};
  const int a = tap / p.x.count, b = tap - a * p.x.count;
  const int64_t place = ((int64_t)k * p.kh + p.y.last - a * p.y.step) * p.kw + p.x.last - b * p.x.step;
  const int8_t *from = p.from + place * p.c + c;
  if (k >= p.own || c >= p.c) return make_uint4(0, 0, 0, 0);
  if (((uintptr_t)p.c | (uintptr_t)p.from) % RUN == 0) return *(const uint4 *)from;
  if (((uintptr_t)p.c | (uintptr_t)p.from) % sizeof *word == 0) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (c + 4 * i < p.c) word[i] = ((const uint32_t *)from)[i];
    }
  } else {
#pragma unroll
    for (int i = 0; i < RUN; ++i) {
      if (c + i < p.c) word[i / 4] |= (uint32_t)(uint8_t)from[i] << 8 * (i % 4);
    }
  }
  return make_uint4(word[0], word[1], word[2], word[3]);
}

static __device__ inline void store_run(int8_t *to, uint4 run, int bytes) {
  const uint32_t word[4] = {run.x, run.y, run.z, run.w};
  if (bytes >= RUN && (uintptr_t)to % RUN == 0) {
    *(uint4 *)to = run;
    return;
  }
#pragma unroll
  for (int i = 0; i < RUN; ++i) {
    if (i < bytes) to[i] = (int8_t)(word[i / 4] >> 8 * (i % 4));
  }
}

/* Where 16 channels of filter k are in a block's share: so that both ways of reading it meet all banks. */
static __device__ inline int share_offset(int k, int c) { return k * SIDE + k / RUN * RUN + c; }

/* 16 filters of channel c, from filter k on. */
static __device__ inline uint4 turned_run(const int8_t *share, int k, int c) {
  uint32_t word[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < RUN; ++i) word[i / 4] |= (uint32_t)(uint8_t)share[share_offset(k + i, c)] << 8 * (i % 4);
  return make_uint4(word[0], word[1], word[2], word[3]);
}

static __device__ inline void pack_tiles(const NitiPack &p, uint32_t block) {
  const int chunks = (p.c + NITI_WGMMA_CHUNK - 1) / NITI_WGMMA_CHUNK, taps = p.y.count * p.x.count;
  const int chunk = (int)(block % (uint32_t)chunks), rest = (int)(block / (uint32_t)chunks), tap = rest % taps;
  const int k = rest / taps * SIDE + (int)threadIdx.x / (SIDE / RUN), run = (int)threadIdx.x % (SIDE / RUN);
  const uint4 value = load_run(p, tap, k, chunk * SIDE + run * RUN);
  *(uint4 *)(tile_of(p, k, chunk * SIDE, p.c, tap) + tile_offset(k, run)) = value;
}

/* The zeros at the end of a row, by the block that has its last bytes. */
static __device__ inline void end_row(const NitiPack &p, int8_t *row, int first) {
  for (size_t i = (size_t)first; i < p.pitch; ++i) row[i] = 0;
}

static __device__ inline void pack_turned(const NitiPack &p, uint32_t block) {
  __shared__ uint4 runs[(SIDE * SIDE + SIDE) / RUN];
  int8_t *const share = (int8_t *)runs;
  const bool tiles = p.kind == NITI_PACK_TURNED_TILES;
  const int across = (p.k + SIDE - 1) / SIDE, taps = p.y.count * p.x.count;
  const int k0 = (int)(block % (uint32_t)across) * SIDE, rest = (int)(block / (uint32_t)across), tap = rest % taps;
  const int c0 = rest / taps * SIDE, line = (int)threadIdx.x / (SIDE / RUN), run = (int)threadIdx.x % (SIDE / RUN);
  *(uint4 *)&share[share_offset(line, run * RUN)] = load_run(p, tap, k0 + line, c0 + run * RUN);
  __syncthreads();
  const uint4 value = turned_run(share, run * RUN, line);
  const int c = c0 + line, k = k0 + run * RUN;
  if (tiles) {
    *(uint4 *)(tile_of(p, c, k0, p.k, tap) + tile_offset(c, run)) = value;
    return;
  }
  int8_t *const row = p.to + (size_t)c * p.pitch;
  if (c < p.c && k < p.k) store_run(row + tap * p.k + k, value, p.k - k);
  if (c < p.c && tap == taps - 1 && k0 + SIDE >= p.k && run == 0) end_row(p, row, taps * p.k);
}

static __device__ inline void pack_rows(const NitiPack &p, uint32_t block) {
  const size_t row = (size_t)p.kh * (size_t)p.kw * (size_t)p.c, bytes = p.pitch * (size_t)p.k;
  for (int i = 0; i < RUN; ++i) {
    const size_t at = (size_t)block * PART + (size_t)(i * THREADS) + threadIdx.x, k = at / p.pitch, in = at - k * p.pitch;
    if (at < bytes) p.to[at] = in < row && k < (size_t)p.own ? p.from[k * row + in] : (int8_t)0;
  }
}

static __device__ inline void pack_table(const NitiPack &p, uint32_t block) {
  const int i = (int)(block * THREADS + threadIdx.x), tap = i / p.c, y = tap / p.x.count, x = tap - y * p.x.count;
  NitiMmaEntry entry = {y * p.in_row + x * p.c + i % p.c, (uint16_t)y, (uint16_t)x};
  if (y >= p.y.count) entry = NitiMmaEntry{0, 0, 0};
  if ((size_t)i < p.pitch) ((NitiMmaEntry *)p.to)[i] = entry;
}

static __global__ void __launch_bounds__(THREADS) pack_kernel(const __grid_constant__ Packs packs) {
  niti_kernel_begin();
  uint32_t block;
  const NitiPack &p = packs.all[niti_find_tensor(packs.all, packs.count, blockIdx.x, &block)];
  switch (p.kind) {
    case NITI_PACK_ROWS: pack_rows(p, block); break;
    case NITI_PACK_TILES: pack_tiles(p, block); break;
    case NITI_PACK_TABLE: pack_table(p, block); break;
    default: pack_turned(p, block); break;
  }
}

static uint32_t blocks_of(const NitiPack &p) {
  const uint32_t taps = (uint32_t)(p.y.count * p.x.count), sides = NITI_WGMMA_CHANNELS / SIDE;
  switch (p.kind) {
    case NITI_PACK_ROWS: return niti_blocks(p.pitch * (size_t)p.k, PART);
    case NITI_PACK_TABLE: return niti_blocks(p.pitch, THREADS);
    case NITI_PACK_TILES: return niti_blocks((size_t)p.k, NITI_WGMMA_CHANNELS) * sides * taps * niti_blocks((size_t)p.c, SIDE);
    case NITI_PACK_TURNED_TILES:
      return niti_blocks((size_t)p.c, NITI_WGMMA_CHANNELS) * sides * taps * niti_blocks((size_t)p.k, SIDE);
    default: return niti_blocks((size_t)p.c, SIDE) * taps * niti_blocks((size_t)p.k, SIDE);
  }
}

extern "C" void niti_packs_end(NitiPacks *packs) {
  Packs args = {};
  uint32_t blocks = 0;
  args.count = packs->count;
  for (int i = 0; i < packs->count; ++i) {
    args.all[i] = packs->all[i];
    args.all[i].end = blocks += blocks_of(packs->all[i]);
  }
  packs->count = 0;
  if (blocks > 0) NITI_LAUNCH(packs->cuda, pack_kernel, blocks, THREADS, 0, args);
}

extern "C" void niti_packs_add(NitiPacks *packs, const NitiPack *pack) {
  if (blocks_of(*pack) == 0) return;
  if (packs->count == NITI_PACKS) niti_packs_end(packs);
  packs->all[packs->count++] = *pack;
}
