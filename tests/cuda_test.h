/* What the tests of the CUDA backend share: the CPU's reference kernels beside each family of the device's, and a way to run one
 * piece of work on all of them and compare everything it left behind, byte for byte.
 *
 * Without a device (or in a build without CUDA) every test skips and says why; with NITI_TEST_GPU set that is a failure instead.
 */
#ifndef NITI_TESTS_CUDA_TEST_H
#define NITI_TESTS_CUDA_TEST_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#ifdef NITI_TEST_MEETINGS
#include "backend/cuda/cuda.h"
#endif
#include "base/shift_prediction.h"
#include "kernel_calls.h"
#include "share.h"
#include "splitmix.h"

enum { CPU, MMA, WGMMA, DEVICES };
enum { GUARD = 256, PLACE_ALIGN = 256, GUARD_BYTE = 0xa5, PLACES_MAX = 4096, MIB = 1 << 20 };

typedef struct Place {
  size_t offset, bytes;
} Place;

typedef struct Device {
  NitiBackend *backend; /* NULL: not there */
  const char *name;
  uint8_t *arena; /* backend memory that cases share out anew */
  size_t used;
  Place places[PLACES_MAX];
  int place_count;
} Device;

static Device devices[DEVICES] = {{.name = "cpu"}, {.name = "mma"}, {.name = "wgmma"}};
static size_t arena_bytes;
static char why_not[1024]; /* there is no CUDA device */

static uint64_t random_state;

static inline uint64_t next_random(void) { return splitmix64(&random_state); }

static inline int random_in(int low, int high) { return low + (int)(next_random() % (uint64_t)(high - low + 1)); }

/* ---- devices ---- */

/* Blocks wait for each other without an end only in the first open backend of a device, so the second family's would never do:
 * the one that is about to work gets that right, while the others have nothing under way. */
static inline void let_meet(int working) {
#ifdef NITI_TEST_MEETINGS
  static bool may; /* what the first was given: not where the environment or another process forbids it */
  if (!devices[MMA].backend || !devices[WGMMA].backend) return;
  if (!niti_cuda(devices[MMA].backend)->shared) may = true;
  for (int i = MMA; i < DEVICES; ++i) niti_cuda(devices[i].backend)->shared = !may || i != working;
#else
  (void)working;
#endif
}

/* A group's tear-down. */
static inline int close_devices(void **unused) {
  (void)unused;
  for (int i = 0; i < DEVICES; ++i) {
    Device *d = &devices[i];
    if (!d->backend) continue;
    if (d->arena) d->backend->ops->release(d->backend, d->arena);
    niti_backend_close(d->backend);
    d->backend = NULL;
    d->arena = NULL;
  }
  return 0;
}

/* Opens all there is, each with an arena of so many bytes; cpu_isa: the CPU's kernels to compare with. For a group's set-up. */
static inline int open_devices(const char *cpu_isa, size_t bytes) {
  const NitiBackendOptions options[DEVICES] = {
      {.name = "cpu", .isa = cpu_isa}, {.name = "cuda", .isa = "mma"}, {.name = "cuda", .isa = "wgmma"}};
  arena_bytes = bytes;
  for (int i = CPU; i < DEVICES; ++i) {
    Device *d = &devices[i];
    void *arena = NULL;
    const NitiStatus status = niti_backend_open(&d->backend, &options[i]);
    if (status == NITI_OK) {
      if (d->backend->ops->alloc(d->backend, &arena, bytes) != NITI_OK) {
        print_error("%s: %s\n", d->name, niti_error());
        return -1;
      }
      d->arena = arena;
      continue;
    }
    if (i == MMA) snprintf(why_not, sizeof why_not, "%s", niti_error());
    if (i == WGMMA && devices[MMA].backend) print_message("wgmma kernels are not tested: %s\n", niti_error());
    if (i == CPU || status != NITI_ERROR_UNSUPPORTED || (i == MMA && getenv("NITI_TEST_GPU"))) {
      print_error("%s: %s\n", d->name, niti_error());
      return -1;
    }
  }
  return 0;
}

/* First thing in every test. */
static inline void need_cuda(void) {
  if (devices[MMA].backend) return;
  print_message("skipped: %s\n", why_not);
  skip();
}

/* ---- memory of one case ---- */

/* This many bytes, poisoned, with a guard after them. */
static inline void *place(Device *d, size_t bytes) {
  const size_t room = (bytes + GUARD + PLACE_ALIGN - 1) / PLACE_ALIGN * PLACE_ALIGN;
  assert_true(d->used + room <= arena_bytes && d->place_count < PLACES_MAX);
  uint8_t *poison = malloc(room);
  assert_non_null(poison);
  memset(poison, GUARD_BYTE, room);
  uint8_t *memory = d->arena + d->used;
  d->backend->ops->upload(d->backend, memory, poison, room);
  free(poison);
  d->places[d->place_count++] = (Place){d->used, bytes};
  d->used += room;
  return memory;
}

static inline void *place_copy(Device *d, const void *host, size_t bytes) {
  void *memory = place(d, bytes);
  d->backend->ops->upload(d->backend, memory, host, bytes);
  return memory;
}

/* With room for every layout that the device may want. */
static inline size_t tensor_room(const Device *d, NitiShape shape) {
  const int uses = NITI_USE_GRADIENT | NITI_USE_MASK | NITI_USE_OTHER;
  return d->backend->kernels->tensor_bytes ? d->backend->kernels->tensor_bytes(d->backend, shape, uses) : niti_shape_count(shape);
}

static inline NitiTensor tensor_out(Device *d, NitiShape shape) {
  void *data = place(d, tensor_room(d, shape)), *exponent = place(d, sizeof(int32_t));
  return (NitiTensor){.data = data, .exponent = exponent, .shape = shape, .uses = NITI_USE_OTHER};
}

/* The maximum of a ReLU whose limit at this exponent is 0 to 127, or beyond; 0: none. */
static inline int32_t random_limit(int32_t exponent) {
  static const int32_t edges[] = {0, 1, 2, 126, 127, 128};
  const int64_t limit = random_in(0, 1) ? edges[random_in(0, 5)] : random_in(0, 130), all = limit * 1000000;
  const int64_t max = exponent < -40 || exponent > 20 ? 0 : exponent < 0 ? all >> -exponent : all << exponent;
  return random_in(0, 2) == 0 ? 0 : max > 2000000000 ? 2000000000 : max > 0 ? (int32_t)max : 1;
}

static inline NitiTensor tensor_in(Device *d, NitiShape shape, const int8_t *data, int32_t exponent) {
  const NitiTensor t = tensor_out(d, shape);
  d->backend->ops->upload(d->backend, t.data, data, niti_shape_count(shape));
  d->backend->ops->upload(d->backend, t.exponent, &exponent, sizeof exponent);
  return t;
}

/* Checks the guards and forgets the case's memory. */
static inline void finish_case(Device *d, const char *what) {
  uint8_t guard[GUARD];
  for (int i = 0; i < d->place_count; ++i) {
    const Place *p = &d->places[i];
    d->backend->ops->download(d->backend, guard, d->arena + p->offset + p->bytes, GUARD);
    for (int k = 0; k < GUARD; ++k) {
      if (guard[k] != GUARD_BYTE) fail_msg("%s, %s: byte %d behind allocation %d was written", what, d->name, k, i);
    }
  }
  d->used = 0;
  d->place_count = 0;
  if (d->backend->ops->synchronise(d->backend) != NITI_OK) fail_msg("%s, %s: %s", what, d->name, niti_error());
}

/* ---- what a piece of work left behind ---- */

typedef struct Entry {
  char label[96];
  size_t offset, bytes, element;
} Entry;

typedef struct Record {
  uint8_t *bytes;
  size_t size;
  Entry entries[PLACES_MAX];
  int count;
} Record;

/* Keeps `bytes` of backend memory made of elements of so many bytes. */
static inline void keep(Record *r, Device *d, const char *label, const void *from, size_t bytes, size_t element) {
  assert_true(r->count < PLACES_MAX);
  r->bytes = realloc(r->bytes, r->size + bytes);
  assert_non_null(r->bytes);
  d->backend->ops->download(d->backend, r->bytes + r->size, from, bytes);
  Entry *e = &r->entries[r->count++];
  *e = (Entry){.offset = r->size, .bytes = bytes, .element = element};
  snprintf(e->label, sizeof e->label, "%s", label);
  r->size += bytes;
}

/* A word of predictions but for its rise, which only kernels that take samples change. */
static inline void keep_shift(Record *r, Device *d, const char *label, const int32_t *prediction) {
  keep(r, d, label, prediction, 3, 1);
}

static inline void keep_tensor(Record *r, Device *d, const char *label, const NitiTensor *t) {
  keep(r, d, label, t->data, niti_shape_count(t->shape), 1);
  keep(r, d, "its exponent", t->exponent, sizeof *t->exponent, 4);
}

/* The convolution whose gradient is the products of all of a tensor's channels with all. */
static inline NitiConv products_of(const NitiTensor *t) {
  return conv_shape(t->shape.n, t->shape.h, t->shape.w, t->shape.c, t->shape.c, 1, 1, 1, 1, 0, 0);
}

/* Scratch for keep_products; to be called before the tensor is written, if its mantissas may be left out. */
static inline void reserve_products(Device *d, const NitiTensor *t) {
  const NitiConv conv = products_of(t);
  if (d->backend->kernels->reserve(d->backend, call_conv_workspace(d->backend, &conv, false)) != NITI_OK)
    fail_msg("%s: %s", d->name, niti_error());
}

/* Keeps what conv_gradient reads of a tensor, as both operands. That is another layout on the device, which the tensor's writer
 * may have made, with images past the last that must count as 0. */
static inline void keep_products(Record *r, Device *d, const NitiTensor *t) {
  const NitiConv conv = products_of(t);
  const size_t count = (size_t)conv.c * (size_t)conv.c;
  reserve_products(d, t);
  NitiGradient gradient = {place(d, count * sizeof(int64_t)), 64, count, {NULL, NULL}};
  call_conv_gradient(d->backend, &gradient, t, t, &conv, false);
  keep(r, d, "its products as an operand of a gradient", gradient.data, count * sizeof(int64_t), 8);
}

static inline void keep_operand(Record *r, Device *d, const char *label, const NitiTensor *t) {
  keep_tensor(r, d, label, t);
  keep_products(r, d, t);
}

static inline int64_t element_of(const Record *r, const Entry *e, size_t i) {
  int8_t narrow;
  int16_t half;
  int32_t word;
  int64_t wide = 0;
  const uint8_t *at = r->bytes + e->offset + i * e->element;
  if (e->element == 1) return memcpy(&narrow, at, 1), narrow;
  if (e->element == 2) return memcpy(&half, at, 2), half;
  if (e->element == 4) return memcpy(&word, at, 4), word;
  return memcpy(&wide, at, 8), wide;
}

static inline void compare(const Record *expected, const Record *got, const char *what, const char *device) {
  assert_int_equal(got->count, expected->count);
  for (int i = 0; i < got->count; ++i) {
    const Entry *e = &expected->entries[i];
    assert_int_equal(got->entries[i].bytes, e->bytes);
    if (memcmp(expected->bytes + e->offset, got->bytes + e->offset, e->bytes) == 0) continue;
    const size_t count = e->bytes / e->element;
    size_t wrong = 0, first = 0;
    for (size_t k = count; k-- > 0;) {
      if (element_of(expected, e, k) == element_of(got, e, k)) continue;
      ++wrong;
      first = k;
    }
    fail_msg("%s: %s (%d), %s: %zu of %zu differ, first at %zu: %lld instead of %lld", device, e->label, i, what, wrong, count,
             first, (long long)element_of(got, e, first), (long long)element_of(expected, e, first));
  }
}

/* Does a piece of work on one device and keeps its results. */
typedef void (*Work)(Device *d, const void *context, Record *results);

/* Does it on all devices and compares. The step and seed of random words are set. */
static inline void check_work(Work work, const void *context, const char *what) {
  Record records[DEVICES] = {{0}};
  if (is_left_out()) return;
  const uint64_t seed = next_random();
  const uint32_t step = (uint32_t)next_random();
  for (int i = CPU; i < DEVICES; ++i) {
    Device *d = &devices[i];
    if (!d->backend) continue;
    let_meet(i);
    begin_step(d->backend, seed, step);
    work(d, context, &records[i]);
    finish_case(d, what);
    let_meet(MMA);
    if (i != CPU) compare(&records[CPU], &records[i], what, d->name);
  }
  for (int i = CPU; i < DEVICES; ++i) free(records[i].bytes);
}

/* ---- operands ---- */

typedef enum Fill { FILL_FULL, FILL_HIGH, FILL_LOW, FILL_SPARSE, FILL_TINY, FILL_LATE, FILL_ONCE, FILLS } Fill;

/* Freed by the caller. FULL: all mantissas; HIGH, LOW: the largest of one sign; SPARSE: mostly 0; TINY: -1, 0, 1; LATE: tiny but
 * for the last eighth, so that some work is done before its range is seen; ONCE: tiny but for a run somewhere, that few blocks
 * see.
 */
static inline int8_t *mantissas(size_t count, Fill fill) {
  int8_t *m = malloc(count + 1);
  assert_non_null(m);
  const size_t run = 16, begin = (size_t)(next_random() % count);
  for (size_t i = 0; i < count; ++i) {
    const bool tiny =
        fill == FILL_TINY || (fill == FILL_LATE && i < count - count / 8) || (fill == FILL_ONCE && i - begin >= run);
    const uint64_t word = next_random();
    const int8_t any = (int8_t)((int)(word % 255) - 127);
    m[i] = fill == FILL_HIGH     ? 127
           : fill == FILL_LOW    ? -127
           : fill == FILL_SPARSE ? (int8_t)((word >> 32) % 16 == 0 ? any : 0)
           : tiny                ? (int8_t)((int)(word % 3) - 1)
                                 : any;
  }
  return m;
}

/* Predictions of a shift: useless, out of range, or likely. */
static inline int32_t random_prediction(void) {
  static const int32_t predictions[] = {INT32_MIN, -1, 0, 1, 25, 26, 1000, INT32_MAX};
  if (random_in(0, 2) == 0) return predictions[random_in(0, 7)];
  return random_in(0, 1) ? random_in(0, 25) : niti_shift_prediction_of(random_in(0, 25));
}

#endif
