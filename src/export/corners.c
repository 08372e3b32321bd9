/* Directed cases: the arithmetic by itself at its turning points, and every operation on operands that bring it there. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/update.h"
#include "export/directed.h"
#include "export/sums.h"
#include "export/values.h"

/* Accumulators round the points where something changes at a shift: ties, clips, the ends of the range. */
static size_t interesting(int32_t *out, int shift) {
  size_t count = 0;
  for (int sign = -1; sign <= 1; sign += 2) {
    static const int32_t values[] = {0, 1, 2, 63, 64, 126, 127, 128};
    for (size_t k = 0; k < sizeof values / sizeof *values; ++k) {
      for (int64_t near = -1; near <= 1; ++near) {
        const int64_t whole = ((int64_t)values[k] << shift) + near, half = whole + (shift > 0 ? (int64_t)1 << (shift - 1) : 0);
        if (whole >= 0 && whole <= INT32_MAX) out[count++] = (int32_t)(sign * whole);
        if (half >= 0 && half <= INT32_MAX) out[count++] = (int32_t)(sign * half);
      }
    }
  }
  out[count++] = INT32_MAX;
  out[count++] = -INT32_MAX;
  return count;
}

/* The same where the upper half of the dropped bits and the lower one, twice as large where their number is odd, are nearly
 * equal. */
static size_t near_halves(int32_t *out, int shift) {
  const int32_t half = shift / 2, high_most = shift > half ? (1 << (shift - half)) - 1 : 0, low_most = (1 << half) - 1;
  size_t count = 0;
  for (int32_t k = 0; k < 8 && shift > 0; ++k) {
    const int32_t high = (int32_t)((int64_t)high_most * (k + 1) / 9), equal = shift % 2 ? high / 2 : high;
    for (int32_t low = equal - 1; low <= equal + 1; ++low) {
      const int32_t rest = high << half | (low < 0 ? 0 : low > low_most ? low_most : low);
      out[count++] = k % 2 ? -rest : rest;
      if (shift < 24) out[count++] = (5 << shift) + rest;
    }
    out[count++] = high << half | (high < low_most ? high : low_most);
    out[count++] = high << half | (high / 2 < low_most ? high / 2 : low_most);
  }
  return count;
}

static NitiStatus put_case(NitiRecord *r, json_t *entry, const char *key, const char *dtype, size_t n, const void *data) {
  const NitiValues values = {.name = key, .dtype = dtype, .layout = "P", .rank = 1, .dims = {(int64_t)n}, .data = data};
  char stem[96];
  json_t *entries = json_array();
  (void)snprintf(stem, sizeof stem, "case%03" PRId64 "-%s", r->count, key);
  const NitiStatus status = niti_values_write(r->options->out, stem, r->formats, &values, entries);
  if (status == NITI_OK) json_object_set(entry, key, json_array_get(entries, 0));
  json_decref(entries);
  return status;
}

static NitiStatus round_case(NitiRecord *r, NitiRounding mode, int shift) {
  int32_t sums[256];
  uint32_t words[256];
  int8_t results[256];
  size_t n = interesting(sums, shift);
  if (mode == NITI_PSEUDO_STOCHASTIC) n += near_halves(sums + n, shift);
  json_t *entry = json_pack("{s:s, s:s, s:i}", "opcode", "requantise", "rounding", niti_rounding_name(mode), "shift", shift);
  NITI_TRY(niti_record_add(r, entry));
  for (size_t k = 0; k < n; ++k) {
    const uint32_t rest = (uint32_t)(sums[k] < 0 ? -sums[k] : sums[k]) & (shift ? (1u << shift) - 1 : 0);
    words[k] = shift == 0               ? 0
               : k % 3 == 0             ? rest << (32 - shift)
               : k % 3 == 1 && rest > 0 ? (rest - 1) << (32 - shift)
                                        : UINT32_MAX;
    results[k] = niti_round_int8(sums[k], shift, mode, words[k]);
  }
  NITI_TRY(put_case(r, entry, "accumulators", "int32", n, sums));
  if (mode == NITI_STOCHASTIC) NITI_TRY(put_case(r, entry, "words", "uint32", n, words));
  NITI_TRY(put_case(r, entry, "results", "int8", n, results));
  ++r->count;
  return NITI_OK;
}

static NitiStatus update_case(NitiRecord *r, int32_t top, int mu) {
  int64_t gradient[8] = {top, -top, top / 2, -top / 2, 1, -1, 0, top - (top > 0)};
  int8_t before[8] = {127, -127, 0, 127, -127, 1, 5, -3}, after[8];
  json_t *entry = json_pack("{s:s, s:i}", "opcode", "update_niti", "mu", mu);
  NITI_TRY(niti_record_add(r, entry));
  memcpy(after, before, sizeof after);
  niti_update_niti(after, gradient, 8, mu);
  NITI_TRY(put_case(r, entry, "weights", "int8", 8, before));
  NITI_TRY(put_case(r, entry, "gradient", "int64", 8, gradient));
  NITI_TRY(put_case(r, entry, "results", "int8", 8, after));
  ++r->count;
  return NITI_OK;
}

static NitiStatus add_case(NitiRecord *r, int32_t ea, int32_t eb) {
  static const int8_t a[] = {127, -127, 0, 1, -1, 127, 64, -64, 2, -3}, b[] = {127, 127, -127, 1, -1, -1, 64, -63, 3, -2};
  enum { N = sizeof a };
  int64_t sums[N];
  int32_t narrow[N];
  int8_t results[N];
  NitiOperation o = niti_operation(NITI_OP_ADD, NITI_PHASE_FORWARD, 0);
  const NitiSumOperands in = {.input = {a, b}, .exponent = {ea, eb}};
  (void)niti_sums(sums, &o, &in, N, 1); /* of an addition, without memory */
  const int shift = niti_requantise_shift((uint32_t)niti_record_largest(sums, N));
  for (int k = 0; k < N; ++k) {
    narrow[k] = (int32_t)sums[k];
    results[k] = niti_round_int8(sums[k], shift, NITI_NEAREST, 0);
  }
  json_t *entry =
      json_pack("{s:s, s:[i,i], s:i, s:s}", "opcode", "add", "exponents", ea, eb, "shift", shift, "rounding", "nearest");
  NITI_TRY(niti_record_add(r, entry));
  NITI_TRY(put_case(r, entry, "a", "int8", N, a));
  NITI_TRY(put_case(r, entry, "b", "int8", N, b));
  NITI_TRY(put_case(r, entry, "accumulators", "int32", N, narrow));
  NITI_TRY(put_case(r, entry, "results", "int8", N, results));
  ++r->count;
  return NITI_OK;
}

/* The longest sum that int32 holds exactly, of products of the largest mantissas. */
static NitiStatus longest_case(NitiRecord *r, int8_t x, int8_t w) {
  enum { N = 133144 };
  int8_t *values = malloc(2 * N);
  int32_t sum = 0;
  if (!values) return niti_fail(NITI_ERROR_MEMORY, "out of memory for vectors");
  for (int i = 0; i < N; ++i) {
    values[i] = x;
    values[N + i] = w;
    sum += x * w;
  }
  json_t *entry = json_pack("{s:s, s:i}", "opcode", "dot", "shift", niti_requantise_shift((uint32_t)(sum < 0 ? -sum : sum)));
  NitiStatus status = niti_record_add(r, entry);
  if (status == NITI_OK) status = put_case(r, entry, "a", "int8", N, values);
  if (status == NITI_OK) status = put_case(r, entry, "b", "int8", N, values + N);
  if (status == NITI_OK) status = put_case(r, entry, "accumulators", "int32", 1, &sum);
  free(values);
  ++r->count;
  return status;
}

static NitiStatus write_rounding(NitiRecord *r) {
  for (int mode = NITI_NEAREST; mode <= NITI_TRUNCATE; ++mode) {
    for (int shift = 0; shift <= 24; ++shift) NITI_TRY(round_case(r, (NitiRounding)mode, shift));
  }
  return NITI_OK;
}

static NitiStatus write_updates(NitiRecord *r) {
  static const int32_t tops[] = {0, 1, 2, 3, 16, 17, 127, 128, 200, 1000000, INT32_MAX};
  static const int rates[] = {0, 1, 4, 7, 8, 16, 30};
  for (size_t k = 0; k < sizeof tops / sizeof *tops; ++k) {
    for (size_t m = 0; m < sizeof rates / sizeof *rates; ++m) NITI_TRY(update_case(r, tops[k], rates[m]));
  }
  return NITI_OK;
}

static NitiStatus write_additions(NitiRecord *r) {
  for (int32_t d = -26; d <= 26; ++d) NITI_TRY(add_case(r, -10, -10 + d));
  return NITI_OK;
}

static NitiStatus write_corners(NitiRecord *r) {
  if (niti_record_wants(r, "requantise")) NITI_TRY(write_rounding(r));
  if (niti_record_wants(r, "update_niti")) NITI_TRY(write_updates(r));
  if (niti_record_wants(r, "add")) NITI_TRY(write_additions(r));
  if (niti_record_wants(r, "dot")) NITI_TRY(longest_case(r, 127, 127));
  if (niti_record_wants(r, "dot")) NITI_TRY(longest_case(r, -127, 127));
  return niti_directed_write(r);
}

/* Before a file is written. */
static NitiStatus check_words(const NitiVectorOptions *options) {
  const char *names[NITI_OPCODES + 2] = {"requantise", "dot"};
  for (int i = 0; i < NITI_OPCODES; ++i) names[i + 2] = niti_opcodes[i].name;
  return niti_record_check_words(options, names, NITI_OPCODES + 2, "there is");
}

NitiStatus niti_vectors_corners(int64_t *count, const NitiVectorOptions *options) {
  NitiRecord r;
  NitiStatus status = niti_record_open(&r, options);
  if (status == NITI_OK) status = check_words(options);
  if (status == NITI_OK) status = niti_record_make_folder(&r);
  if (status == NITI_OK) status = write_corners(&r);
  if (status == NITI_OK) {
    json_t *index = niti_record_index(&r, "corners");
    status = niti_values_write_index(options->out, index);
    json_decref(index);
  }
  if (status != NITI_OK) niti_record_discard(&r);
  *count = r.count;
  niti_record_close(&r);
  return status;
}
