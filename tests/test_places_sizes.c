/* Arenas whose size is known: what is alive when memory is fullest, counted by hand, and no more. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "places_map.h"
#include "program/early.h"
#include "program/fuse.h"

static size_t arena_with(const char *layers, bool training, bool gradients) {
  char text[512];
  NitiPlaces places;
  const NitiLowerOptions options = {.batch = 1, .training = training};
  (void)snprintf(text, sizeof text,
                 "name: t\ninput: [16, 16, 1]\nclasses: 2\nlayers:\n%s  - flatten\n  - linear: {out: classes}\n", layers);
  NitiProgram *p = program_of(text, &options);
  must(niti_places_open(&places, p, &(NitiPlacing){.gradients = gradients}));
  const size_t bytes = places.arena_bytes;
  niti_places_close(&places);
  niti_program_close(p);
  return bytes;
}

static size_t arena_of(const char *layers, bool training) { return arena_with(layers, training, false); }

/* 256 bytes of input, 1024, 512 and 2048 of the convolutions' outputs, and the logits' unit of 256. */
static void a_chain_takes_its_widest_pair(void **state) {
  static const char three[] = "  - conv: {out: 4, kernel: 1}\n  - conv: {out: 2, kernel: 1}\n  - conv: {out: 8, kernel: 1}\n";
  (void)state;
  assert_int_equal(arena_of("  - conv: {out: 4, kernel: 1}\n", false), 1024 + 256);
  assert_int_equal(arena_of("  - conv: {out: 4, kernel: 1}\n  - conv: {out: 2, kernel: 1}\n", false), 1024 + 512);
  assert_int_equal(arena_of(three, false), 512 + 2048);
  assert_int_equal(arena_of("  - conv: {out: 4, kernel: 1}\n  - relu\n  - relu\n", false), 1024 + 256); /* in place */
}

/* At the loss everything is alive: the input (256 bytes), both outputs (1024 and 512), the logits and their delta (256 each). On
 * the way back deltas take the places of outputs that were read for the last time: 256 + 1024 + 256 + 512 before the first
 * convolution's output goes, then 256 + 512 + 1024. */
static void training_takes_what_the_loss_needs(void **state) {
  (void)state;
  assert_int_equal(arena_of("  - conv: {out: 4, kernel: 1}\n  - conv: {out: 2, kernel: 1}\n", true),
                   256 + 1024 + 512 + 256 + 256);
}

/* The linear layer's gradient (2048 sums of 4 bytes) begins when only the input (256 bytes), the convolution's output (1024) and
 * the logits' delta (256) are left of what the loss needed; the convolution's gradient (256) when there are the input and its
 * delta. */
static void gradients_take_what_backward_leaves(void **state) {
  (void)state;
  assert_int_equal(arena_with("  - conv: {out: 4, kernel: 1}\n", true, true), 8192 + 256 + 1024 + 256);
}

/* The chain of a_chain_takes_its_widest_pair, most of whose memory is in use when its last convolution runs, with 512 and 2048
 * bytes; scratch of 1024 bytes counts where it is wanted: not at the first convolution (256 and 1024 bytes), but at the last. */
static void temporaries_count_while_they_live(void **state) {
  const NitiLowerOptions options = {.batch = 1};
  NitiProgram *p = program_of(
      "name: t\ninput: [16, 16, 1]\nclasses: 2\nlayers: [{conv: {out: 4, kernel: 1}}, {conv: {out: 2, "
      "kernel: 1}}, {conv: {out: 8, kernel: 1}}, flatten, {linear: {out: classes}}]\n",
      &options);
  static const size_t without[3] = {256 + 1024, 1024 + 512, 512 + 2048};
  int32_t convolutions[3] = {0};
  int found = 0;
  (void)state;
  for (int32_t i = 0; i < p->operation_count && found < 3; ++i) {
    if (p->operations[i].opcode == NITI_OP_CONV_FORWARD) convolutions[found++] = i;
  }
  for (int i = 0; i < 4; ++i) { /* at one of the convolutions, or from the first to the last */
    const NitiTemporary t = {1024, convolutions[i % 3], i < 3 ? convolutions[i] : convolutions[2]};
    NitiPlaces places;
    must(niti_places_open(&places, p, &(NitiPlacing){.temporaries = &t, .temporary_count = 1}));
    assert_int_equal(places.arena_bytes, i < 2 ? 512 + 2048 : 512 + 2048 + 1024);
    for (int k = 0; k < 3; ++k) assert_int_equal(places.alive[convolutions[k]], without[k] + (i == 3 || i == k ? 1024 : 0));
    niti_places_close(&places);
  }
  niti_program_close(p);
}

/* Largest first alone would leave gaps in these; nothing can take less than what is alive at the same time. */
static void no_gap_is_left_while_memory_is_fullest(void **state) {
  static const struct {
    const char *model;
    int32_t batch;
  } cases[] = {{"lenet5", 128}, {"resnet18", 256}};
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    NitiDescription *d = NULL;
    NitiPlaces places;
    size_t most = 0;
    must(niti_description_load(&d, cases[i].model, NULL));
    NitiProgram *p =
        lowered(d, &(NitiLowerOptions){
                       .batch = cases[i].batch, .training = true, .loss = NITI_LOSS_SOFTMAX, .optimizer = &niti_optimizer_sgd});
    must(niti_update_early(p, 0));
    must(niti_fuse(p));
    must(niti_places_open(&places, p, &(NitiPlacing){.gradients = true}));
    for (int32_t k = 0; k < p->operation_count; ++k) most = places.alive[k] > most ? places.alive[k] : most;
    assert_int_equal(places.arena_bytes, most);
    niti_places_close(&places);
    niti_program_close(p);
    niti_description_close(d);
  }
}

/* As the CUDA backend has them: [N/16][H][W][C][16], and a bit per element, for 16 images by 64 channels, or by multiples of 128.
 */
static size_t cuda_layout(const void *context, const NitiProgram *p, int32_t t, int which) {
  const NitiShape s = niti_tensor_shape(&p->tensors[t], p->batch);
  const size_t blocks = (size_t)(s.n + 15) / 16, positions = (size_t)s.h * (size_t)s.w;
  (void)context;
  return which == 0 ? blocks * 16 * positions * (size_t)s.c
                    : blocks * positions * (s.c <= 64 ? 128 : ((size_t)s.c + 127) / 128 * 256);
}

static int cuda_reads(const void *context, const NitiProgram *p, int32_t operation, int input) {
  (void)context;
  return (int)niti_use_of(&p->operations[operation], input);
}

/* ResNet-18 at batch 128, at the first gradient of a 3x3 convolution, or at the delta behind it. Alive, by stage of 64, 128, 256
 * and 512 channels, and 128 images: what norms read on their way back, 19 of 20 convolutions' outputs; what gradients sum, the
 * network's input and 16 ReLUs' outputs, or of these the blocked layout, with the bits that mask deltas; the delta of the block's
 * output, the convolution's delta, and either that in the blocked layout, or the next delta; the gradients of the convolution,
 * the linear layer and the norm before it; 20 norms' sums but one. Nothing else: no elements that only forward reads, no gradient
 * of earlier convolutions. No plan can have less, except that other operations' order might. */
static void resnet18_takes_what_backward_reads(void **state) {
  enum { S64 = 32 * 32 * 64, S128 = 16 * 16 * 128, S256 = 8 * 8 * 256, S512 = 4 * 4 * 512, N = 128, PLACES_MAX = 100 };
  const size_t convolutions = (size_t)N * (5 * S64 + 5 * S128 + 5 * S256 + 4 * S512);
  const size_t operands = (size_t)N * (32 * 32 * 3 + 5 * S64 + 4 * S128 + 4 * S256 + 3 * S512), deltas = (size_t)N * 3 * S512;
  const size_t bits = (size_t)N * (5 * S64 + 4 * S128 + 4 * S256 + 3 * S512) / 8;
  const size_t gradients = (size_t)4 * 512 * 9 * 512 + 4 * 512 * 10 + 2 * 8 * 512;
  const size_t sums = (size_t)16 * (5 * 64 + 5 * 128 + 5 * 256 + 4 * 512);
  const size_t all = convolutions + operands + deltas + gradients + sums + (size_t)PLACES_MAX * NITI_ALIGN;
  const NitiPlacing placings[] = {{.gradients = true}, {.gradients = true, .layout = cuda_layout, .reads = cuda_reads}};
  NitiDescription *d = NULL;
  (void)state;
  must(niti_description_load(&d, "resnet18", NULL));
  NitiProgram *p = lowered(d, &(NitiLowerOptions){.batch = N,
                                                  .training = true,
                                                  .round_delta = NITI_STOCHASTIC_BYTE,
                                                  .loss = NITI_LOSS_SOFTMAX,
                                                  .optimizer = &niti_optimizer_sgd});
  must(niti_update_early(p, 0));
  must(niti_fuse(p));
  for (int i = 0; i < 2; ++i) {
    NitiPlaces places;
    check_places(p, &placings[i]);
    must(niti_places_open(&places, p, &placings[i]));
    assert_in_range(places.arena_bytes, convolutions + operands, all + (i ? bits : 0));
    niti_places_close(&places);
  }
  niti_program_close(p);
  niti_description_close(d);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_chain_takes_its_widest_pair),          cmocka_unit_test(training_takes_what_the_loss_needs),
      cmocka_unit_test(gradients_take_what_backward_leaves),    cmocka_unit_test(temporaries_count_while_they_live),
      cmocka_unit_test(no_gap_is_left_while_memory_is_fullest), cmocka_unit_test(resnet18_takes_what_backward_reads)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
