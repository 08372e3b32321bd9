/* The kernel that adds what other ranks have copied, and those of mailboxes, against additions here. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "backend/cuda/copies.h"
#include "backend/executable.h"
#include "model/network.h"
#include "program/bounds.h"
#include "program/places.h"
#include "splitmix.h"

enum { CASES = 60, SUMS_MOST = 300, VALUES_MOST = 40000, RANKS = 4, GUARD_BYTE = 0x5a };

static uint64_t dice = 11;

static size_t draw(size_t below) { return (size_t)(splitmix64(&dice) % below); }

static NitiBackend *open_device(void) {
  const NitiBackendOptions options = {.name = "cuda"};
  NitiBackend *b = NULL;
  if (niti_backend_open(&b, &options) != NITI_OK) fail_msg("%s", niti_error());
  return b;
}

static void *memory(NitiBackend *b, size_t bytes) {
  void *p = NULL;
  if (b->ops->alloc(b, &p, bytes) != NITI_OK) fail_msg("%s", niti_error());
  return p;
}

static void fill(void *to, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) ((uint8_t *)to)[i] = (uint8_t)splitmix64(&dice);
}

/* What a sum is to become: of any bits, as wrapping additions have them. */
static void add(uint8_t *to, const uint8_t *from, size_t bytes, bool wide) {
  const size_t each = wide ? 8 : 4;
  for (size_t i = 0; i < bytes; i += each) {
    uint64_t a = 0, b = 0;
    memcpy(&a, to + i, each);
    memcpy(&b, from + i, each);
    a += b;
    memcpy(to + i, &a, each); /* the low bytes come first */
  }
}

static void try_additions(NitiBackend *b, int count, size_t most, int parts) {
  static NitiCopy sums[SUMS_MOST];
  static size_t rooms[SUMS_MOST];
  size_t part = 0, at = 0;
  for (int i = 0; i < count; ++i) {
    sums[i].wide = draw(2);
    sums[i].bytes = (1 + draw(draw(3) ? 40 : most)) * (sums[i].wide ? 8 : 4);
    sums[i].offset = part;
    rooms[i] = (sums[i].bytes + NITI_ALIGN - 1) / NITI_ALIGN * NITI_ALIGN;
    part += rooms[i] + draw(2) * NITI_ALIGN;
  }
  uint8_t *inbox = memory(b, part * (size_t)parts), *gradients = memory(b, part), *expected = malloc(part);
  assert_non_null(expected);
  fill(inbox, part * (size_t)parts); /* which is the host's memory, too */
  fill(gradients, part);
  for (int i = 0; i < count; ++i) {
    sums[i].data = gradients + at;
    memset(gradients + at + sums[i].bytes, GUARD_BYTE, rooms[i] - sums[i].bytes);
    at += rooms[i];
  }
  memcpy(expected, gradients, part);
  for (int i = 0; i < count; ++i) {
    uint8_t *to = expected + ((uint8_t *)sums[i].data - gradients);
    for (int k = 0; k < parts; ++k) add(to, inbox + (size_t)k * part + sums[i].offset, sums[i].bytes, sums[i].wide);
  }
  niti_cuda_add_copies(niti_cuda(b), sums, count, inbox, parts, part);
  assert_int_equal(b->ops->synchronise(b), NITI_OK);
  assert_memory_equal(gradients, expected, part);
  b->ops->release(b, inbox);
  b->ops->release(b, gradients);
  free(expected);
}

static void test_copies_are_added(void **state) {
  NitiBackend *b = open_device();
  (void)state;
  for (int i = 0; i < CASES; ++i) try_additions(b, 1 + (int)draw(6), VALUES_MOST, 1 + i % (RANKS - 1));
  try_additions(b, SUMS_MOST, 50, 2); /* more than one launch takes */
  niti_backend_close(b);
}

/* The other ranks' words lie there already. */
static void test_mailboxes_exchange(void **state) {
  NitiBackend *b = open_device();
  NitiMailboxes of[RANKS];
  uint32_t number = 0;
  (void)state;
  for (int r = 0; r < RANKS; ++r) {
    of[r] = (NitiMailboxes){.rank = r, .ranks = RANKS};
    for (int k = 0; k < RANKS; ++k) of[r].of[k] = r > 0 ? of[0].of[k] : memory(b, niti_mailbox_bytes(RANKS));
    of[r].number = memory(b, sizeof(uint32_t));
  }
  int64_t *data = memory(b, NITI_COPIES_WORDS * sizeof *data);
  for (int i = 0; i < 3 * CASES; ++i) {
    const size_t count = 1 + draw(NITI_COPIES_WORDS);
    const NitiReduction reduction = i % 3 ? NITI_REDUCE_SUM_S64 : NITI_REDUCE_MAX_U32;
    int64_t values[RANKS][NITI_COPIES_WORDS], sums[NITI_COPIES_WORDS];
    uint32_t maxima[NITI_COPIES_WORDS];
    fill(values, sizeof values);
    number = niti_mailbox_next(number);
    memcpy(data, values[0], sizeof sums);
    memcpy(sums, values[0], sizeof sums);
    memcpy(maxima, values[0], sizeof maxima);
    for (int r = 1; r < RANKS; ++r) {
      for (size_t k = 0; k < count; ++k) {
        uint32_t value;
        memcpy(&value, (const char *)values[r] + 4 * k, 4);
        sums[k] = (int64_t)((uint64_t)sums[k] + (uint64_t)values[r][k]);
        maxima[k] = value > maxima[k] ? value : maxima[k];
        niti_mailbox_put(&of[r], number, values[r], count, k, reduction, i % 3 == 2);
      }
    }
    if (i % 3 == 2)
      niti_cuda_mailbox_promise(niti_cuda(b), &of[0], data, count);
    else
      niti_cuda_mailbox_exchange(niti_cuda(b), &of[0], data, count, reduction);
    assert_int_equal(b->ops->synchronise(b), NITI_OK);
    assert_int_equal(*of[0].number, number);
    assert_memory_equal(data, i % 3 ? (const void *)sums : (const void *)maxima, count * (i % 3 ? 8 : 4));
    for (int r = 1; r < RANKS; ++r) { /* what rank 0 has sent: taken and cleared */
      for (size_t k = 0; k < niti_mailbox_words(count, reduction); ++k) {
        uint64_t *word = niti_mailbox_place(&of[r], r, 0, number, k);
        uint32_t value;
        memcpy(&value, (const char *)values[0] + 4 * (i % 3 ? k % count * 2 + k / count : k), 4);
        assert_true(*word == ((uint64_t)number << 32 | value));
        *word = 0;
        assert_true(*niti_mailbox_place(&of[0], 0, r, number, k) == 0);
        for (int to = 1; to < RANKS; ++to) *niti_mailbox_place(&of[r], to, r, number, k) = 0;
      }
    }
  }
  for (int k = 0; k < RANKS; ++k) b->ops->release(b, of[0].of[k]);
  for (int r = 0; r < RANKS; ++r) b->ops->release(b, of[r].number);
  b->ops->release(b, data);
  niti_backend_close(b);
}

/* ---- the sums of whole programs ---- */

/* A rank whose inboxes are open: the only one, so that nobody has to be waited for. */
static NitiBackend *open_rank(NitiRanks *ranks) {
  NitiBackend *b = open_device();
  NitiCuda *cuda = niti_cuda(b);
  b->together.ranks = ranks;
  cuda->sums = calloc(1, sizeof *cuda->sums);
  cuda->peers = calloc(1, sizeof *cuda->peers);
  cuda->copies = calloc(1, sizeof *cuda->copies);
  assert_true(cuda->sums && cuda->peers && cuda->copies);
  cuda->peers->boxes.ranks = 1;
  cuda->peers->boxes.number = memory(b, sizeof(uint32_t));
  return b;
}

static size_t reserved;

/* As niti_cuda_reserve_sums does, of a rank by itself. */
static NitiStatus reserve(NitiBackend *b, size_t bytes) {
  NitiCopies *c = niti_cuda(b)->copies;
  reserved = bytes;
  c->bytes = bytes;
  c->inboxes = (NitiShared){.open = true, .ranks = 1, .of = {memory(b, NITI_ALIGN)}};
  if (niti_cuda_runtime.cudaStreamCreateWithFlags(&c->side, cudaStreamNonBlocking) != cudaSuccess) return NITI_ERROR_DEVICE;
  return niti_cuda_runtime.cudaEventCreateWithFlags(&c->reached, cudaEventDisableTiming) == cudaSuccess ? NITI_OK
                                                                                                        : NITI_ERROR_DEVICE;
}

/* Every gradient lies in one of the sums. */
static void check_sums(const NitiNetwork *net, const NitiCopies *c) {
  for (int32_t i = 0; i < net->program->operation_count; ++i) {
    const NitiOperation *o = &net->program->operations[i];
    if (o->opcode != NITI_OP_ALL_SUM) continue;
    const char *data = (const char *)net->training->tensors[o->inputs[0]].data;
    const size_t bytes = (size_t)niti_exchanged_bytes(net->program, o);
    int found = 0;
    for (int k = 0; k < c->count; ++k) {
      const char *first = c->of[k].data;
      const bool wide = net->program->tensors[o->inputs[0]].dtype == NITI_DTYPE_S64;
      found += data >= first && data + bytes <= first + c->of[k].bytes && c->of[k].wide == wide;
    }
    assert_int_equal(found, 1);
  }
}

static void sums_of(const char *model, int32_t whole) {
  NitiBackend *b = open_rank((NitiRanks *)(void *)&dice);
  NitiKernels kernels = *b->kernels;
  NitiDescription *description = NULL;
  NitiNetwork *net = NULL;
  const NitiLowerOptions options = {.batch = 1, .training = true, .whole = whole, .optimizer = &niti_optimizer_sgd};
  const NitiBindings bindings = {.batch = 1, .whole = 2};
  kernels.reserve_sums = reserve;
  b->kernels = &kernels;
  assert_int_equal(niti_description_load(&description, model, NULL), NITI_OK);
  if (niti_network_open(&net, description, b, &options) != NITI_OK) fail_msg("%s", niti_error());
  assert_int_equal(niti_backend_reserve_sums(b, net->program), NITI_OK);
  NitiCopies *c = niti_cuda(b)->copies;
  for (int32_t i = 0, end; i < net->program->operation_count; i = end) {
    const NitiOpcode opcode = net->program->operations[i].opcode;
    for (end = i + 1; end < net->program->operation_count && net->program->operations[end].opcode == opcode;) ++end;
    if (opcode == NITI_OP_ALL_SUM_WAIT) {
      assert_int_equal(c->used, reserved);
      check_sums(net, c);
    }
    if (opcode != NITI_OP_ALL_SUM && opcode != NITI_OP_ALL_SUM_WAIT) continue;
    assert_int_equal(niti_executable_run(net->training, i, end, &bindings), NITI_OK);
    assert_int_equal(niti_cuda(b)->sums->count, 0); /* none is NCCL's */
  }
  assert_false(niti_cuda_has_sums(niti_cuda(b)));
  assert_int_equal(b->ops->synchronise(b), NITI_OK);
  b->ops->release(b, c->inboxes.of[0]);
  b->ops->release(b, niti_cuda(b)->peers->boxes.number);
  niti_network_close(net);
  niti_description_close(description);
  niti_backend_close(b);
}

static void test_what_is_reserved_holds_the_sums_of_programs(void **state) {
  (void)state;
  sums_of("lenet5", 2);
  sums_of("vgg-small-7", 2048);
  sums_of("resnet18", 512);
  sums_of("resnet18", 3000); /* some sums of 64 bits */
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_copies_are_added), cmocka_unit_test(test_mailboxes_exchange),
                                     cmocka_unit_test(test_what_is_reserved_holds_the_sums_of_programs)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
