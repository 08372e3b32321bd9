/* State that outlives a loss of power: two slots, of which the older is overwritten, each with a header that is written last and
 * a CRC-32C (Castagnoli, RFC 3720) over all before it. Whatever write the power fails in, the other slot stays whole.
 *
 * A slot is written in ascending order, with no byte written twice, so a driver for flash erases a page when its first byte
 * comes. Every write begins at a multiple of RT_UNIT_BYTES and has a multiple of them, so that flash which is programmed in words
 * of up to that size takes it: weights are filled up with 0xff, and the header begins behind them. */
#ifndef NITI_RT_STORE_H
#define NITI_RT_STORE_H

#include "niti_rt.h"

enum { RT_UNIT_BYTES = 32, RT_HEADER_BYTES = 2 * RT_UNIT_BYTES, RT_CRC_AT = RT_HEADER_BYTES - 4, RT_ARITHMETIC = 1 };
#define RT_MAGIC 0x4954494eu /* "NITI" */

/* Reads or writes bytes [offset, offset + size) of a slot, 0 or 1. Return 0 for success. */
typedef int (*rt_read_slot)(void *user, int slot, uint32_t offset, void *data, uint32_t size);
typedef int (*rt_write_slot)(void *user, int slot, uint32_t offset, const void *data, uint32_t size);

/* What is kept besides the weights. */
typedef struct rt_state {
  uint32_t network; /* which network it belongs to */
  uint32_t sequence, step;
  uint64_t seed;
  int32_t mu;
} rt_state;

RT_UNUSED static uint32_t rt_crc(uint32_t crc, const uint8_t *p, uint32_t count) {
  int32_t i;
  crc = ~crc;
  for (; count > 0; --count) {
    crc ^= *p++;
    for (i = 0; i < 8; ++i) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1u)));
  }
  return ~crc;
}

RT_UNUSED static void rt_store_u32(uint8_t *p, uint32_t v) {
  int32_t i;
  for (i = 0; i < 4; ++i) p[i] = (uint8_t)(v >> (8 * i));
}

RT_UNUSED static uint32_t rt_load_u32(const uint8_t *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Where the header of so many bytes of weights begins. */
RT_UNUSED static uint32_t rt_header_at(uint32_t bytes) { return (bytes + RT_UNIT_BYTES - 1u) / RT_UNIT_BYTES * RT_UNIT_BYTES; }

/* Little-endian words: magic, arithmetic, network, sequence, step, seed (two), mu, bytes of weights; zeros; and at the end the
 * CRC-32C of all before it. crc: that of the weights, filled up. */
RT_UNUSED static void rt_header(uint8_t header[RT_HEADER_BYTES], const rt_state *s, uint32_t bytes, uint32_t crc) {
  int32_t at;
  for (at = 36; at < RT_CRC_AT; ++at) header[at] = 0;
  rt_store_u32(header, RT_MAGIC);
  rt_store_u32(header + 4, RT_ARITHMETIC);
  rt_store_u32(header + 8, s->network);
  rt_store_u32(header + 12, s->sequence);
  rt_store_u32(header + 16, s->step);
  rt_store_u32(header + 20, (uint32_t)s->seed);
  rt_store_u32(header + 24, (uint32_t)(s->seed >> 32));
  rt_store_u32(header + 28, (uint32_t)s->mu);
  rt_store_u32(header + 32, bytes);
  rt_store_u32(header + RT_CRC_AT, rt_crc(crc, header, RT_CRC_AT));
}

/* Whether the slot holds a whole state of this network, by reading it through; -1: a read failed. */
RT_UNUSED static int32_t rt_slot_whole(rt_state *s, rt_read_slot read, void *user, int slot, uint32_t network, uint32_t bytes) {
  uint8_t header[RT_HEADER_BYTES], some[RT_UNIT_BYTES];
  const uint32_t end = rt_header_at(bytes);
  uint32_t at, crc = 0;
  if (read(user, slot, end, header, RT_HEADER_BYTES) != 0) return -1;
  if (rt_load_u32(header) != RT_MAGIC || rt_load_u32(header + 4) != RT_ARITHMETIC) return 0;
  if (rt_load_u32(header + 8) != network || rt_load_u32(header + 32) != bytes) return 0;
  for (at = 0; at < end; at += RT_UNIT_BYTES) {
    if (read(user, slot, at, some, RT_UNIT_BYTES) != 0) return -1;
    crc = rt_crc(crc, some, RT_UNIT_BYTES);
  }
  if (rt_crc(crc, header, RT_CRC_AT) != rt_load_u32(header + RT_CRC_AT)) return 0;
  s->network = network;
  s->sequence = rt_load_u32(header + 12);
  s->step = rt_load_u32(header + 16);
  s->seed = rt_load_u32(header + 20) | (uint64_t)rt_load_u32(header + 24) << 32;
  s->mu = (int32_t)rt_load_u32(header + 28);
  return 1;
}

/* The slot with the newest whole state, or -1; *unread: a slot could not be read, so that it may be newer. Sequence numbers may
 * wrap. */
RT_UNUSED static int32_t rt_newest(rt_state *s, int32_t *unread, rt_read_slot read, void *user, uint32_t network,
                                   uint32_t bytes) {
  rt_state other;
  const int32_t first = rt_slot_whole(s, read, user, 0, network, bytes);
  const int32_t second = rt_slot_whole(&other, read, user, 1, network, bytes);
  *unread = first < 0 || second < 0;
  if (second <= 0) return first > 0 ? 0 : -1;
  if (first > 0 && (int32_t)(other.sequence - s->sequence) < 0) return 0;
  *s = other;
  return 1;
}

/* Writes the weights, the last of them filled up to a whole unit. Returns 0 or -1; *crc: of what was written. */
RT_UNUSED static int rt_write_weights(uint32_t *crc, const int8_t *weights, uint32_t bytes, int slot, rt_write_slot write,
                                      void *user) {
  const uint32_t rest = bytes % RT_UNIT_BYTES, whole = bytes - rest;
  uint8_t unit[RT_UNIT_BYTES];
  uint32_t i;
  *crc = rt_crc(0, (const uint8_t *)weights, whole);
  if (whole > 0 && write(user, slot, 0, weights, whole) != 0) return -1;
  if (rest == 0) return 0;
  for (i = 0; i < RT_UNIT_BYTES; ++i) unit[i] = i < rest ? (uint8_t)weights[whole + i] : (uint8_t)0xff;
  *crc = rt_crc(*crc, unit, RT_UNIT_BYTES);
  return write(user, slot, whole, unit, RT_UNIT_BYTES) != 0 ? -1 : 0;
}

/* Returns 0, or -1 if a callback failed: then the newest state before is still there. */
RT_UNUSED static int rt_save(const rt_state *state, const int8_t *weights, uint32_t bytes, rt_read_slot read, rt_write_slot write,
                             void *user) {
  uint8_t header[RT_HEADER_BYTES];
  rt_state before, now = *state;
  uint32_t crc;
  int32_t unread;
  const int32_t newest = rt_newest(&before, &unread, read, user, state->network, bytes);
  const int slot = newest == 0 ? 1 : 0;
  if (unread) return -1; /* which slot is the older cannot be known */
  now.sequence = newest < 0 ? 1u : before.sequence + 1u;
  if (rt_write_weights(&crc, weights, bytes, slot, write, user) != 0) return -1;
  rt_header(header, &now, bytes, crc);
  return write(user, slot, rt_header_at(bytes), header, RT_HEADER_BYTES) != 0 ? -1 : 0;
}

/* Returns 0, or -1 if no slot holds a whole state: then nothing is changed, or, where reading fails at last, weights are
 * undefined. A slot that cannot be read counts as empty. */
RT_UNUSED static int rt_load(rt_state *state, int8_t *weights, uint32_t bytes, rt_read_slot read, void *user) {
  rt_state found;
  int32_t unread;
  const int32_t newest = rt_newest(&found, &unread, read, user, state->network, bytes);
  if (newest < 0 || read(user, newest, 0, weights, bytes) != 0) return -1;
  *state = found;
  return 0;
}

#endif
