/* Where a program's tensors lie, checked by playing the list through on a map of the arena, for the built-in models and random
 * ones, as lowered and as fused, with updates at the end and early, and with layouts beside the elements. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "config/builtin.h"
#include "every_layer.h"
#include "places_map.h"
#include "program/early.h"
#include "program/fuse.h"

enum { RANDOM_NETWORKS = 200 };

/* What a backend might need that stores some tensors in several layouts: up to three times the elements, and a few bytes. */
static size_t more_bytes(const void *context, const NitiProgram *p, int32_t t) {
  return element_bytes(context, p, t) * (size_t)(t % 3 + 1) + (size_t)(t % 7);
}

/* A device that keeps every tensor in layouts too: gradients' operands are read in one, masks in the other, or in both ways. */
static size_t some_layout(const void *context, const NitiProgram *p, int32_t t, int which) {
  return which == 0 ? element_bytes(context, p, t) + 77 : (size_t)(t % 5) * 300;
}

static int reads_layouts(const void *context, const NitiProgram *p, int32_t operation, int input) {
  const NitiOperation *o = &p->operations[operation];
  (void)context;
  return (int)niti_use_of(o, input) | (operation % 3 == 0 ? (int)NITI_USE_OTHER : 0);
}

/* A backend that also wants memory of its own: scratch of single operations, and what is kept from one operation to another. */
static void check_temporary_places(const NitiProgram *p, NitiPlacing how) {
  const int32_t count = p->operation_count;
  NitiTemporary *t = calloc((size_t)count + 1, sizeof *t);
  assert_non_null(t);
  for (int32_t i = 0; i < count; ++i) {
    const int32_t first = i % 3 ? i : i / 2;
    t[i] = (NitiTemporary){(size_t)(i % 5) * 700 * (size_t)(i % 7), first, i % 4 ? i : (i + count) / 2};
  }
  how.temporaries = t;
  how.temporary_count = (size_t)count;
  check_places(p, &how);
  free(t);
}

enum { FUSED = 2, EARLY = 4, WAYS = 8 };

static void check_description(const NitiDescription *description, NitiLowerOptions options) {
  for (int which = 0; which < WAYS; ++which) {
    options.training = which % 2 == 0;
    NitiProgram *p = lowered(description, &options);
    if (which & EARLY) must(niti_update_early(p, 0));
    if (which & FUSED) must(niti_fuse(p));
    for (int gradients = 0; gradients < 2; ++gradients) {
      check_places(p, &(NitiPlacing){.gradients = gradients});
      check_places(p, &(NitiPlacing){.gradients = gradients, .bytes = more_bytes});
      check_places(p, &(NitiPlacing){.gradients = gradients, .layout = some_layout, .reads = reads_layouts});
      check_temporary_places(p, (NitiPlacing){.gradients = gradients});
      check_temporary_places(p, (NitiPlacing){.gradients = gradients, .layout = some_layout, .reads = reads_layouts});
    }
    niti_program_close(p);
  }
}

static void builtin_models_have_room(void **state) {
  (void)state;
  for (const char *const *name = niti_builtin_models(); *name; ++name) {
    NitiDescription *d = NULL;
    must(niti_description_load(&d, *name, NULL));
    check_description(d, (NitiLowerOptions){.batch = 2, .loss = NITI_LOSS_SOFTMAX, .optimizer = &niti_optimizer_sgd});
    niti_description_close(d);
  }
}

static void every_layer_has_room(void **state) {
  NitiDescription *d = described(every_layer);
  (void)state;
  check_description(d, (NitiLowerOptions){.batch = 5});
  niti_description_close(d);
  d = described(every_layer_normed);
  check_description(d, (NitiLowerOptions){.batch = 5, .loss = NITI_LOSS_SOFTMAX, .optimizer = &niti_optimizer_sgd});
  niti_description_close(d);
}

static void random_networks_have_room(void **state) {
  static RandomNetwork r;
  (void)state;
  random_state = 21;
  for (int i = 0; i < RANDOM_NETWORKS; ++i) {
    NitiDescription *d = described(random_network(&r));
    check_description(d, random_lowering(&r));
    niti_description_close(d);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(builtin_models_have_room), cmocka_unit_test(every_layer_has_room),
                                     cmocka_unit_test(random_networks_have_room)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
