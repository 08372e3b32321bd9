/* The end of a matrix product in the fragments that mma.sync and wgmma share: rounding, ReLU or mask, and stores in both layouts.
 *
 * A warp has 16 rows: the 16 images of a block at one output position. A thread's accumulators of `BN` = 128 columns are acc[4 j
 * + 2 i
 * + b], row lane / 4 + 8 i, column 8 j + 2 (lane % 4) + b. The products are fed with their columns in such an order that this
 * column is output channel 64 (j / 8) + 16 (lane % 4) + 2 (j % 8) + b: a thread has two runs of 16 neighbours in memory, and four
 * threads fill whole 32-byte sectors with each store. */
#ifndef NITI_BACKEND_CUDA_FINISH_CUH
#define NITI_BACKEND_CUDA_FINISH_CUH

#include "backend/cuda/device.cuh"
#include "backend/cuda/round_four.cuh"

enum { NITI_FINISH_CHANNELS = 128, NITI_FINISH_RUN = 64 /* from a thread's first run of channels to its second */ };

/* The output channel of a column, both within a tile of 128. */
NITI_INLINE int niti_finish_channel(int column) {
  return column / 64 * 64 + column % 8 / 2 * 16 + column % 64 / 8 * 2 + column % 2;
}
/* The column of an output channel. */
NITI_INLINE int niti_finish_column(int channel) {
  return channel / 64 * 64 + channel % 16 / 2 * 8 + channel % 64 / 16 * 2 + channel % 2;
}

struct NitiOutput {
  int n, oh, ow, k;    /* shape */
  int8_t *y, *blocked; /* NULL: not wanted */
  uint2 *bits;         /* NULL: not wanted; which of y's mantissas a ReLU's backward passes (cuda.h); y has no limit */
  const uint2 *mask;   /* the bits of a tensor of the same shape, 0 where y shall be 0; NULL: none */
  const int8_t *loose; /* niti_finish_loose: that tensor itself instead */
};

#ifdef __CUDACC__

enum NitiFinish {
  NITI_FINISH_RELU,
  NITI_FINISH_SIGNED,
  NITI_FINISH_MASKED,
  NITI_FINISH_BYTE,
  NITI_FINISH_ANY,
  NITI_FINISH_LOOSE, /* channels that are no multiple of 16, niti_finish_loose: to nearest, */
  NITI_FINISH_LOOSE_BYTE,
  NITI_FINISH_LOOSE_ANY
};

static inline NitiFinish niti_finish_of(const NitiRequantiseArgs &rq, const NitiOutput &d) {
  /* a thread's runs of 16 channels then share a block of random words each */
  const bool bytes = rq.mode == NITI_STOCHASTIC_BYTE && rq.clip <= NITI_WIDE_CLIP;
  if (bytes && !rq.relu && d.k % 16 == 0) return NITI_FINISH_BYTE;
  if (rq.mode != NITI_NEAREST) return NITI_FINISH_ANY;
  return d.mask ? NITI_FINISH_MASKED : rq.relu ? NITI_FINISH_RELU : NITI_FINISH_SIGNED;
}

/* Bit 7 of the bytes that are > 0; the other bits are anything. */
__device__ inline uint32_t niti_positive_signs(uint32_t v) { return ((v & 0x7f7f7f7fu) + 0x7f7f7f7fu) & ~v; }

/* Which of 16 bytes a ReLU's backward passes: bit 7 - i of byte b stands for byte b of word i. lowered: niti_lowered's, 0: those
 * > 0. */
__device__ inline uint32_t niti_passing_bits(uint4 v, uint32_t lowered) {
  return (niti_passing_signs(v.x, lowered) & 0x80808080u) | (niti_passing_signs(v.y, lowered) & 0x80808080u) >> 1 |
         (niti_passing_signs(v.z, lowered) & 0x80808080u) >> 2 | (niti_passing_signs(v.w, lowered) & 0x80808080u) >> 3;
}

__device__ inline uint32_t niti_positive_bits(uint4 v) {
  return (niti_positive_signs(v.x) & 0x80808080u) | (niti_positive_signs(v.y) & 0x80808080u) >> 1 |
         (niti_positive_signs(v.z) & 0x80808080u) >> 2 | (niti_positive_signs(v.w) & 0x80808080u) >> 3;
}

/* The positions of a thread's two rows in the output. */
struct NitiSpot {
  size_t at, down, blocked; /* index of the first row's first channel; from there to the second's; into the blocked layout */
  size_t bits;              /* this lane's among the bits */
  bool row[2], pixel;       /* rows that are inside; a pixel of some image that does */
  int channels;             /* left from this thread's first */
};

/* Images nb .. nb + 15 at one position, channels from k0. */
__device__ inline NitiSpot niti_spot(const NitiOutput &t, int nb, int oh, int ow, int k0) {
  const int lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3;
  const size_t position = (size_t)oh * t.ow + ow, plane = (size_t)t.oh * t.ow;
  NitiSpot s;
  s.pixel = oh < t.oh && ow < t.ow && nb < t.n;
  s.row[0] = s.pixel && nb + g < t.n;
  s.row[1] = s.pixel && nb + g + 8 < t.n;
  s.at = ((size_t)(nb + g) * plane + position) * t.k + k0 + 16 * q;
  s.down = 8 * plane * t.k;
  s.channels = t.k - k0 - 16 * q;
  s.blocked = (((size_t)(nb >> 4) * plane + position) * t.k + k0 + 16 * (g >> 1) + 2 * (g & 1) + (q & 1)) * 16 + (q & 2) * 4;
  s.bits = (((size_t)(nb >> 4) * plane + position) * niti_bits_blocks(t.k) + k0 / NITI_FINISH_CHANNELS) * 32 + lane;
  return s;
}

/* What a mask lets through of a thread's elements: bits 7 - v, in byte b, for byte b of word v of the first run of 16 channels, 3
 * - v for the second; x: of the first row, y: of the second. */
__device__ inline uint2 niti_mask_load(const NitiOutput &d, const NitiSpot &s) {
  uint2 mask = make_uint2(0, 0);
  if (s.pixel && niti_bits_narrow(d.k)) {
    mask.x = __ldg((const uint32_t *)d.mask + s.bits);
    mask.y = mask.x << 4; /* what else that leaves stands for a second run, of which there is none */
  } else if (s.pixel) {
    mask = __ldg(d.mask + s.bits);
  }
  return mask;
}

/* Of a thread's two rows. Up to 64 channels the second's take the place of the first's second run. */
__device__ inline void niti_bits_store(const NitiOutput &d, const NitiSpot &s, uint32_t first, uint32_t second) {
  if (niti_bits_narrow(d.k))
    ((uint32_t *)d.bits)[s.bits] = first | second >> 4;
  else
    d.bits[s.bits] = make_uint2(first, second);
}

__device__ inline uint32_t niti_bits_of(uint4 first, uint4 second) {
  return niti_positive_bits(first) | niti_positive_bits(second) >> 4;
}

/* Of a tile of up to 64 channels a thread has but the first run, and N = 32 accumulators instead of 64. */

/* The largest |acc| of a thread's elements that are inside. */
template <int N>
__device__ inline uint32_t niti_largest_of(const int (&acc)[N], const NitiSpot &s) {
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    int top = 0, bottom = 0;
#pragma unroll
    for (int j = 0; j < N / 4; ++j) {
      const int a = acc[4 * j + 2 * i], b = acc[4 * j + 2 * i + 1];
      top = __vimax3_s32(top, a, b);
      bottom = __vimin3_s32(bottom, a, b);
    }
    const uint32_t most = (uint32_t)max(top, -bottom);
    if (s.row[i] && most > largest) largest = most;
  }
  return largest;
}

/* Adds a bias to a thread's accumulators, from its first channel on. Channels past the last are there, and 0. */
template <int N>
__device__ inline void niti_add_bias(int (&acc)[N], const int32_t *bias) {
#pragma unroll
  for (int part = 0; part < N / 8; ++part) { /* four channels: run part / 4, word part % 4 */
    const int4 b = *(const int4 *)(bias + part / 4 * NITI_FINISH_RUN + part % 4 * 4);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      acc[8 * part + 2 * i] += b.x;
      acc[8 * part + 2 * i + 1] += b.y;
      acc[8 * part + 4 + 2 * i] += b.z;
      acc[8 * part + 4 + 2 * i + 1] += b.w;
    }
  }
}

/* Bytes -128 become -127. */
__device__ inline uint32_t niti_clip4(uint32_t v) { return v + ((~((v & 0x7f7f7f7fu) + 0x7f7f7f7fu) & v & 0x80808080u) >> 7); }

/* Whether the bits of the mask are read. */
template <NitiFinish FINISH>
__device__ inline bool niti_finish_masks(const NitiOutput &d) {
  return FINISH == NITI_FINISH_MASKED || ((FINISH == NITI_FINISH_BYTE || FINISH == NITI_FINISH_ANY) && d.mask);
}

/* What NITI_STOCHASTIC_BYTE adds to magnitudes: with |acc| < 2^s' << 7, s' = max(s, 9), the magnitude shifted left by `up` = s' -
 * s, plus `most` less a random byte times `unit`, reaches the next multiple of 2^s' exactly where the definition rounds up. */
struct NitiByteRounding {
  int shift, up;
  uint32_t most, unit;
};

__device__ inline NitiByteRounding niti_byte_rounding(int shift) {
  NitiByteRounding b;
  b.up = shift < 9 ? 9 - shift : 0;
  b.shift = shift + b.up;
  b.most = 511u << (b.shift - 9);
  b.unit = 2u << (b.shift - 9);
  return b;
}

__device__ inline int niti_byte_round(int acc, const NitiByteRounding &b, uint32_t byte) {
  const int sign = acc >> 31;
  const uint32_t magnitude = (uint32_t)((acc ^ sign) - sign) << b.up;
  return ((int)((magnitude + b.most - byte * b.unit) >> b.shift) ^ sign) - sign;
}

/* ---- channels that are no multiple of 16, so that a thread's runs of 16 begin anywhere ---- */

/* Bytes first .. first + 15 of two blocks of random words in a row, of which a run of elements takes one each. */
__device__ inline void niti_draw_loose(uint32_t (&words)[4], const NitiDraw &draw, uint64_t first) {
  const NitiWords low = niti_draw_block(&draw, (uint32_t)(first >> 4)), high = niti_draw_block(&draw, (uint32_t)(first >> 4) + 1);
  const uint32_t words_in = (uint32_t)first >> 2 & 3, bytes_in = 0x3210 + 0x1111 * ((uint32_t)first & 3);
  uint32_t from[8] = {low.word[0], low.word[1], low.word[2], low.word[3], high.word[0], high.word[1], high.word[2], high.word[3]};
#pragma unroll
  for (int i = 0; i < 6; ++i) from[i] = words_in & 2 ? from[i + 2] : from[i];
#pragma unroll
  for (int i = 0; i < 5; ++i) from[i] = words_in & 1 ? from[i + 1] : from[i];
#pragma unroll
  for (int i = 0; i < 4; ++i) words[i] = __byte_perm(from[i], from[i + 1], bytes_in);
}

/* 16 bytes, or the `count` that there are; those after them are 0. k: a row's bytes, all of which begin as aligned as it is. */
__device__ inline void niti_load_loose(uint32_t (&words)[4], const int8_t *from, int count, int k) {
#pragma unroll
  for (int v = 0; v < 4; ++v) {
    words[v] = 0;
    if (k % 4 == 0) {
      if (count > 4 * v) words[v] = ((const uint32_t *)from)[v];
      continue;
    }
    if (k % 2 == 0) {
      if (count > 4 * v) words[v] = ((const uint16_t *)from)[2 * v];
      if (count > 4 * v + 2) words[v] |= (uint32_t)((const uint16_t *)from)[2 * v + 1] << 16;
      continue;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (count > 4 * v + i) words[v] |= (uint32_t)(uint8_t)from[4 * v + i] << (8 * i);
    }
  }
}

__device__ inline void niti_store_loose(int8_t *to, const uint32_t (&words)[4], int count, int k) {
#pragma unroll
  for (int v = 0; v < 4; ++v) {
    if (k % 8 == 0) {
      if (v % 2 == 0 && count > 4 * v) ((uint2 *)to)[v / 2] = make_uint2(words[v], words[v + 1]);
      continue;
    }
    if (k % 4 == 0) {
      if (count > 4 * v) ((uint32_t *)to)[v] = words[v];
      continue;
    }
    if (k % 2 == 0) {
      if (count > 4 * v) ((uint16_t *)to)[2 * v] = (uint16_t)words[v];
      if (count > 4 * v + 2) ((uint16_t *)to)[2 * v + 1] = (uint16_t)(words[v] >> 16);
      continue;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (count > 4 * v + i) to[4 * v + i] = (int8_t)(words[v] >> (8 * i));
    }
  }
}

/* Four elements of a row from `index` on. */
template <NitiFinish FINISH>
__device__ inline uint32_t niti_round_loose(const int (&a)[4], const NitiRequantiseArgs &rq, int shift, int half, uint32_t random,
                                            size_t index) {
  int m[4] = {a[0], a[1], a[2], a[3]};
  const uint32_t least = rq.relu ? 0 : 0x10001u * ((uint32_t)-NITI_MANTISSA_MAX & 0xffffu);
  uint32_t word;
  if (FINISH == NITI_FINISH_LOOSE_BYTE) {
    word = niti_wide_requantise<NITI_WIDE_BYTE>(m, niti_wide_up(shift), random, least);
  } else {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (FINISH == NITI_FINISH_LOOSE) /* ties away from zero */
        m[e] = (a[e] + half - (int)niti_shift_right((uint32_t)a[e], shift > 0 ? 31 : 32)) >> shift;
      else
        m[e] = niti_requantise_one(rq, a[e], shift, index + (size_t)e);
    }
    word = niti_clip4(niti_pack4(m[0], m[1], m[2], m[3]));
    if (rq.relu) word &= ~niti_spread_signs(word);
  }
  return word;
}

/* The blocked layout, as niti_finish_block writes it; word: of a thread's two runs and two rows. */
__device__ inline void niti_block_loose(const uint32_t (&word)[2][2][4], const NitiOutput &d, const NitiSpot &s) {
  const int q = threadIdx.x & 3, g = threadIdx.x >> 2 & 7;
  const bool odd = q & 1;
  const int left = s.channels + 16 * (q - (g >> 1)) - 2 * (g & 1) - (q & 1); /* from the channel that this thread gets first */
#pragma unroll
  for (int run = 0; run < 2; ++run) {
#pragma unroll
    for (int v = 0; v < 4; ++v) {
      const uint32_t upper = niti_transpose8x8(word[run][0][v]), lower = niti_transpose8x8(word[run][1][v]);
      const uint32_t a = __byte_perm(upper, lower, 0x6420), b = __byte_perm(upper, lower, 0x7531);
      const uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? a : b, 1);
      niti_store_if(s.pixel && left > NITI_FINISH_RUN * run + 4 * v, d.blocked + s.blocked + (NITI_FINISH_RUN * run + 4 * v) * 16,
                    odd ? make_uint2(other, b) : make_uint2(a, other));
    }
  }
}

/* Rounds and stores a thread's accumulators; whole warps call it. Every way to round has a kernel of its own: with all of them in
 * one its instructions would not fit the cache. */
template <NitiFinish FINISH, int N>
__device__ inline void niti_finish_loose(int (&acc)[N], const NitiOutput &d, const NitiRequantiseArgs &rq, int shift,
                                         const NitiSpot &s) {
  const int half = shift > 0 ? 1 << (shift - 1) : 0;
  NitiDraw draw = {0, 0, 0, 0};
  if (FINISH == NITI_FINISH_LOOSE_BYTE) draw = NitiDraw{rq.clock->seed, rq.purpose, rq.clock->step, rq.layer};
  if (FINISH == NITI_FINISH_LOOSE_BYTE && shift > 16) { /* rarely, so that it is no part of what follows */
#pragma unroll
    for (int k = 0; k < N; ++k) acc[k] = niti_wide_down(acc[k], (uint32_t)shift - 16);
  }
  const uint32_t lowered = niti_lowered(rq.limit, rq.e_limit);
  uint32_t word[2][2][4] = {};
#pragma unroll
  for (int run = 0; run < N / 32; ++run) {
    if (!__any_sync(0xffffffffu, s.channels > NITI_FINISH_RUN * run)) continue;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const size_t at = s.at + (i ? s.down : 0) + NITI_FINISH_RUN * run;
      const int left = s.row[i] ? s.channels - NITI_FINISH_RUN * run : 0;
      uint32_t random[4] = {0, 0, 0, 0};
      if (FINISH == NITI_FINISH_LOOSE_BYTE) niti_draw_loose(random, draw, rq.first + at);
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        const int a = 4 * (8 * run + 2 * v) + 2 * i; /* of four neighbours, which two products of columns share */
        const int four[4] = {acc[a], acc[a + 1], acc[a + 4], acc[a + 5]};
        word[run][i][v] = niti_round_loose<FINISH>(four, rq, shift, half, random[v], at + 4 * v);
      }
      if (d.loose) {
        uint32_t mask[4];
        niti_load_loose(mask, d.loose + at, left, d.k);
#pragma unroll
        for (int v = 0; v < 4; ++v) word[run][i][v] &= niti_passing_bytes(mask[v], lowered);
      }
      if (d.y) niti_store_loose(d.y + at, word[run][i], left, d.k);
#pragma unroll
      for (int v = 0; v < 4; ++v) word[run][i][v] = left > 4 * v ? word[run][i][v] : 0;
    }
  }
  if (d.blocked) niti_block_loose(word, d, s);
}

/* Rounds and stores a thread's accumulators; whole warps call it.
 * clips: whether some element of the warp may round to -128; the same in all of a warp. */
template <NitiFinish FINISH, int N>
__device__ inline void niti_finish_block(int (&acc)[N], const NitiOutput &d, const NitiRequantiseArgs &rq, int shift, bool clips,
                                         const NitiSpot &s, uint2 mask) {
  const int q = threadIdx.x & 3, g = threadIdx.x >> 2 & 7;
  const int half = shift > 0 ? 1 << (shift - 1) : 0, sign = shift > 0 ? 31 : 32; /* a shift by 32 gives 0 */
  const uint32_t up = niti_wide_up(shift), least = 0x10001u * ((uint32_t)-NITI_MANTISSA_MAX & 0xffffu);
  NitiDraw draw = {0, 0, 0, 0};
  if (FINISH == NITI_FINISH_BYTE) draw = NitiDraw{rq.clock->seed, rq.purpose, rq.clock->step, rq.layer};
  if (FINISH == NITI_FINISH_BYTE && shift > 16) { /* rarely, so that it is no part of what follows */
#pragma unroll
    for (int k = 0; k < N; ++k) acc[k] = niti_wide_down(acc[k], (uint32_t)shift - 16);
  }
  const bool half_full = N == 32 || s.channels + 16 * q <= NITI_FINISH_RUN; /* in all of a block: no thread has a second run */
  uint4 word[2][2];
#pragma unroll
  for (int run = 0; run < 2; ++run) {
    if (run == 1 && (N == 32 || half_full)) {
      word[1][0] = word[1][1] = make_uint4(0, 0, 0, 0);
      break;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      uint32_t w[4];
      NitiWords drawn = {{0, 0, 0, 0}};
      if (FINISH == NITI_FINISH_BYTE)
        drawn = niti_draw_block(&draw, (uint32_t)((rq.first + s.at + (i ? s.down : 0) + NITI_FINISH_RUN * run) >> 4));
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        int m[4];
        if (FINISH == NITI_FINISH_BYTE) {
#pragma unroll
          for (int e = 0; e < 4; ++e) m[e] = acc[(4 * (8 * run + 2 * v + e / 2) + 2 * i + e % 2) % N];
          w[v] = niti_wide_requantise<NITI_WIDE_BYTE>(m, up, drawn.word[v], least);
        }
#pragma unroll
        for (int e = 0; e < 4 && FINISH != NITI_FINISH_BYTE; ++e) {
          const int a = acc[(4 * (8 * run + 2 * v + e / 2) + 2 * i + e % 2) % N]; /* N = 32 has left at its second run */
          if (FINISH == NITI_FINISH_RELU) {
            m[e] = (a + half) >> shift;
          } else if (FINISH != NITI_FINISH_ANY) { /* ties away from zero */
            m[e] = (a + half - (int)niti_shift_right((uint32_t)a, (uint32_t)sign)) >> shift;
          } else {
            m[e] = niti_requantise_one(rq, a, shift, s.at + (i ? s.down : 0) + NITI_FINISH_RUN * run + 4 * v + e);
          }
        }
        if (FINISH != NITI_FINISH_BYTE) w[v] = niti_pack4(m[0], m[1], m[2], m[3]);
        if ((FINISH == NITI_FINISH_SIGNED || FINISH == NITI_FINISH_MASKED) && clips) w[v] = niti_clip4(w[v]);
        if (FINISH == NITI_FINISH_RELU || (FINISH == NITI_FINISH_ANY && rq.relu)) w[v] &= ~niti_spread_signs(w[v]);
        if (niti_finish_masks<FINISH>(d)) w[v] &= niti_spread_signs((i ? mask.y : mask.x) << (4 * run + v));
      }
      word[run][i] = make_uint4(w[0], w[1], w[2], w[3]);
      niti_store_if(d.y && s.row[i] && s.channels > NITI_FINISH_RUN * run, d.y + s.at + (i ? s.down : 0) + NITI_FINISH_RUN * run,
                    word[run][i]);
    }
  }
  if ((FINISH == NITI_FINISH_RELU || FINISH == NITI_FINISH_ANY) && d.bits && s.pixel)
    niti_bits_store(d, s, niti_bits_of(word[0][0], word[1][0]), niti_bits_of(word[0][1], word[1][1]));
  if (!d.blocked) return;
  /* A warp's 16 rows are the 16 images of a block at one position. Transposed as pairs of channels, a thread gets channels
   * (a, a + 1) of images 2 q, 2 q + 1, 2 q + 8, 2 q + 9; neighbours exchange so that each stores 8 bytes of one channel. */
  const bool odd = q & 1;
  const int left = s.channels + 16 * (q - (g >> 1)); /* from the channels that this thread gets */
#pragma unroll
  for (int run = 0; run < 2; ++run) {
    if (run == 1 && half_full) break;
    const uint32_t above[4] = {word[run][0].x, word[run][0].y, word[run][0].z, word[run][0].w};
    const uint32_t below[4] = {word[run][1].x, word[run][1].y, word[run][1].z, word[run][1].w};
#pragma unroll
    for (int v = 0; v < 4; ++v) {
      const uint32_t upper = niti_transpose8x8(above[v]), lower = niti_transpose8x8(below[v]);
      const uint32_t a = __byte_perm(upper, lower, 0x6420), b = __byte_perm(upper, lower, 0x7531);
      const uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? a : b, 1);
      niti_store_if(s.pixel && left > NITI_FINISH_RUN * run, d.blocked + s.blocked + (NITI_FINISH_RUN * run + 4 * v) * 16,
                    odd ? make_uint2(other, b) : make_uint2(a, other));
    }
  }
}

/* Zeros in the place of what niti_finish_block and niti_finish_loose store; any number of channels. */
template <int N>
__device__ inline void niti_finish_zeros(const NitiOutput &d, const NitiSpot &s) {
  const int q = threadIdx.x & 3, g = threadIdx.x >> 2 & 7;
  const int left = s.channels + 16 * (q - (g >> 1)) - (d.k % 16 == 0 ? 0 : 2 * (g & 1) + (q & 1));
  const uint32_t none[4] = {0, 0, 0, 0};
#pragma unroll
  for (int run = 0; run < N / 32; ++run) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int8_t *to = d.y + s.at + (i ? s.down : 0) + NITI_FINISH_RUN * run;
      const int channels = d.y && s.row[i] ? s.channels - NITI_FINISH_RUN * run : 0;
      if (d.k % 16 == 0)
        niti_store_if(channels > 0, to, make_uint4(0, 0, 0, 0));
      else
        niti_store_loose(to, none, channels, d.k);
    }
#pragma unroll
    for (int v = 0; v < 4 && d.blocked; ++v)
      niti_store_if(s.pixel && left > NITI_FINISH_RUN * run + (d.k % 16 == 0 ? 0 : 4 * v),
                    d.blocked + s.blocked + (NITI_FINISH_RUN * run + 4 * v) * 16, make_uint2(0, 0));
  }
}

#endif
#endif
