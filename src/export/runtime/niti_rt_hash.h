/* SHA-256, FIPS 180-4, over the weights: the hash that `niti hash` prints. */
#ifndef NITI_RT_HASH_H
#define NITI_RT_HASH_H

#include "niti_rt.h"

typedef struct rt_sha {
  uint32_t state[8], length; /* length: bytes so far, below 2^29 */
  uint8_t block[64];
} rt_sha;

RT_CONST static const uint32_t rt_sha_constants[64] = {
    0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u, 0x3956c25bu, 0x59f111f1u, 0x923f82a4u, 0xab1c5ed5u,
    0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u, 0x72be5d74u, 0x80deb1feu, 0x9bdc06a7u, 0xc19bf174u,
    0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu, 0x2de92c6fu, 0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau,
    0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u, 0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u,
    0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu, 0x53380d13u, 0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u,
    0xa2bfe8a1u, 0xa81a664bu, 0xc24b8b70u, 0xc76c51a3u, 0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u,
    0x19a4c116u, 0x1e376c08u, 0x2748774cu, 0x34b0bcb5u, 0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u,
    0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u, 0x90befffau, 0xa4506cebu, 0xbef9a3f7u, 0xc67178f2u};

static inline uint32_t rt_rotate(uint32_t v, int32_t by) { return (v >> by) | (v << (32 - by)); }

static inline uint32_t rt_sha_word(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

/* The schedule's 64 words pass through a window of 16. */
RT_COLD static void rt_sha_block(rt_sha *h) {
  uint32_t w[16], v[8];
  int32_t i;
  for (i = 0; i < 16; ++i) w[i] = rt_sha_word(h->block + 4 * i);
  for (i = 0; i < 8; ++i) v[i] = h->state[i];
  for (i = 0; i < 64; ++i) {
    uint32_t s0, s1, t1, t2;
    if (i >= 16) {
      const uint32_t a = w[(i + 1) & 15], b = w[(i + 14) & 15];
      w[i & 15] +=
          (rt_rotate(a, 7) ^ rt_rotate(a, 18) ^ (a >> 3)) + w[(i + 9) & 15] + (rt_rotate(b, 17) ^ rt_rotate(b, 19) ^ (b >> 10));
    }
    s1 = rt_rotate(v[4], 6) ^ rt_rotate(v[4], 11) ^ rt_rotate(v[4], 25);
    t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + rt_sha_constants[i] + w[i & 15];
    s0 = rt_rotate(v[0], 2) ^ rt_rotate(v[0], 13) ^ rt_rotate(v[0], 22);
    t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
    v[7] = v[6];
    v[6] = v[5];
    v[5] = v[4];
    v[4] = v[3] + t1;
    v[3] = v[2];
    v[2] = v[1];
    v[1] = v[0];
    v[0] = t1 + t2;
  }
  for (i = 0; i < 8; ++i) h->state[i] += v[i];
}

RT_UNUSED static void rt_sha_open(rt_sha *h) {
  RT_CONST static const uint32_t start[8] = {0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                                             0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
  int32_t i;
  for (i = 0; i < 8; ++i) h->state[i] = start[i];
  h->length = 0;
}

RT_UNUSED static void rt_sha_put(rt_sha *h, const uint8_t *p, uint32_t count) {
  for (; count > 0; --count) {
    h->block[h->length++ & 63u] = *p++;
    if ((h->length & 63u) == 0) rt_sha_block(h);
  }
}

RT_UNUSED static void rt_sha_u32(rt_sha *h, uint32_t v) {
  uint8_t bytes[4];
  int32_t i;
  for (i = 0; i < 4; ++i) bytes[i] = (uint8_t)(v >> (8 * i));
  rt_sha_put(h, bytes, 4);
}

/* 64 hexadecimal digits and a zero byte. */
RT_UNUSED static void rt_sha_close(rt_sha *h, char text[65]) {
  const uint32_t bits = h->length * 8;
  uint8_t byte = 0x80;
  int32_t i;
  do {
    rt_sha_put(h, &byte, 1);
    byte = 0;
  } while ((h->length & 63u) != 56u);
  for (i = 0; i < 4; ++i) rt_sha_put(h, &byte, 1);
  for (i = 24; i >= 0; i -= 8) {
    byte = (uint8_t)(bits >> i);
    rt_sha_put(h, &byte, 1);
  }
  for (i = 0; i < 64; ++i) {
    const uint32_t digit = (h->state[i / 8] >> (28 - 4 * (i % 8))) & 15u;
    text[i] = (char)(digit < 10 ? '0' + digit : 'a' + digit - 10); /* no literal, which RT_CONST would not reach */
  }
  text[64] = 0;
}

/* A weight tensor as the hash names it. */
typedef struct rt_named {
  const char *name;
  const int8_t *frozen; /* as in rt_conv; of a bias its bytes, the low one of each value first */
  uint32_t weight, count, rank, dims[4];
  int32_t exponent;
} rt_named;

RT_UNUSED static void rt_hash(const int8_t *weights, const rt_named *tensors, int32_t count, char text[65]) {
  rt_sha h;
  int32_t i;
  uint32_t d;
  rt_sha_open(&h);
  for (i = 0; i < count; ++i) {
    const rt_named *t = &tensors[i];
    uint32_t length = 0;
    while (t->name[length] != 0) ++length;
    rt_sha_put(&h, (const uint8_t *)t->name, length + 1);
    rt_sha_u32(&h, t->rank);
    for (d = 0; d < t->rank; ++d) rt_sha_u32(&h, t->dims[d]);
    rt_sha_u32(&h, (uint32_t)t->exponent);
    rt_sha_put(&h, (const uint8_t *)(t->frozen ? t->frozen : weights + t->weight), t->count);
  }
  rt_sha_close(&h, text);
}

#endif
