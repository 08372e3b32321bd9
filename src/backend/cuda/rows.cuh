/* How batch norm's kernels share their work where channels matter: a tensor is a matrix of rows, one per pixel, of its channels.
 * A block takes a slice of the channels, and each of its threads keeps V neighbours of them (V = 16, 4 or 1) while it walks down
 * the rows.
 *
 * Rows of channels that are no multiple of 16 are joined where V = 16 shall serve all the same: so many pixels make one row that
 * its columns are such a multiple, and column v is of channel v % C. */
#ifndef NITI_BACKEND_CUDA_ROWS_CUH
#define NITI_BACKEND_CUDA_ROWS_CUH

#include "backend/cuda/tile.cuh"

enum {
  NITI_ROWS_THREADS = 256,
  NITI_ROWS_AT_ONCE = 4,                 /* that a thread has under way */
  NITI_ROWS_JOINED = NITI_SUMS_CHANNELS, /* channels of joined rows at most: the sums take them in one launch */
};

/* By value to a kernel. */
struct NitiRows {
  uint32_t rows, pitch;     /* of the tensor, and elements from one to the next */
  uint32_t first, channels; /* the channels of this launch */
  uint32_t slices, width;   /* of channels; of one, in vectors of V: at most NITI_SUMS_SLICE channels */
  uint32_t lanes;           /* rows that a block takes side by side */
};

/* The widest V for which a thread's channels lie in one aligned word of V bytes. */
static inline int niti_rows_vector(uint32_t channels, const void *a, const void *b, const void *c) {
  const uintptr_t all = (uintptr_t)a | (uintptr_t)b | (uintptr_t)c | channels;
  return all % 16 == 0 ? 16 : all % 4 == 0 ? 4 : 1;
}

static inline NitiRows niti_rows_of(NitiShape s, uint32_t first, uint32_t channels, int V) {
  const uint32_t pitch = (uint32_t)s.c, vectors = channels / (uint32_t)V;
  const uint32_t slices = (channels + NITI_SUMS_SLICE - 1) / NITI_SUMS_SLICE, width = (vectors + slices - 1) / slices;
  return NitiRows{(uint32_t)(niti_shape_count(s) / pitch), pitch, first, channels, slices, width, NITI_ROWS_THREADS / width};
}

/* The joined rows: pixels as .n, columns as .c; .n = 0: pixels do not divide into them, memory is not aligned to 16, or channels
 * need none. */
static inline NitiShape niti_rows_joined(NitiShape s, const void *a, const void *b, const void *c) {
  const uint32_t channels = (uint32_t)s.c, twos = channels & (0u - channels), joined = twos < 16 ? 16 / twos : 1;
  const size_t pixels = niti_shape_count(s) / channels;
  const bool aligned = ((uintptr_t)a | (uintptr_t)b | (uintptr_t)c) % 16 == 0;
  const bool serves = aligned && joined > 1 && pixels % joined == 0 && channels <= NITI_ROWS_JOINED;
  return NitiShape{serves ? (int32_t)(pixels / joined) : 0, 1, 1, s.c * (int32_t)joined};
}

/* Blocks per slice that give each at least one turn, and the device about `each` per multiprocessor. Joined rows have many
 * slices: were their share rounded up, a few blocks would run after all others. */
static inline uint32_t niti_rows_blocks(const NitiCuda *cuda, const NitiRows &r, uint32_t each, bool joined) {
  const uint32_t turn = r.lanes * NITI_ROWS_AT_ONCE, all = (r.rows + turn - 1) / turn;
  const uint32_t room = (uint32_t)cuda->multiprocessors * each, up = (room + r.slices - 1) / r.slices;
  const uint32_t most = joined && up > 1 ? room / r.slices : up;
  return all < most ? all : most;
}

#ifdef __CUDACC__

/* A thread's place. */
struct NitiRowsLane {
  uint32_t lane, vector; /* its first row, and its vector within the slice */
  uint32_t channel;      /* its first, within the tensor */
  bool inside;
};

template <int V>
__device__ inline NitiRowsLane niti_rows_lane(const NitiRows &r) {
  NitiRowsLane l;
  l.lane = threadIdx.x / r.width;
  l.vector = threadIdx.x - l.lane * r.width;
  const uint32_t vector = blockIdx.y * r.width + l.vector;
  l.channel = r.first + vector * V;
  l.inside = l.lane < r.lanes && vector * V < r.channels;
  return l;
}

/* V bytes as words. */
template <int V>
__device__ inline void niti_vector_load(uint32_t *words, const int8_t *from) {
  if (V == 16) {
    const uint4 four = *(const uint4 *)from;
    words[0] = four.x, words[1] = four.y, words[2] = four.z, words[3] = four.w;
  } else {
    words[0] = niti_word_load<V>(from);
  }
}

template <int V>
__device__ inline void niti_vector_store(int8_t *to, const uint32_t *words) {
  if (V == 16) {
    *(uint4 *)to = make_uint4(words[0], words[1], words[2], words[3]);
  } else {
    niti_word_store<V>(to, words[0]);
  }
}

#endif
#endif
