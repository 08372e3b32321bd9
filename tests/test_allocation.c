/* Memory is planned once: a training or test step allocates nothing, once its size of batch has been met. Every allocation of the
 * process is counted, those of other threads too. */
/* clang-format off */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "every_layer.h"
#include "train/step.h"

enum { BATCH = 24, LAST = 7, IMAGES = 40 };

/* A sanitizer puts its own allocator under everything. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define COUNTS 0
#endif
#endif
#ifndef COUNTS
#define COUNTS 1
#endif

static atomic_long allocations;

#if COUNTS
/* glibc's own, under the names that it keeps for those who take their place. */
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

void *malloc(size_t bytes) {
  ++allocations;
  return __libc_malloc(bytes);
}
void *calloc(size_t count, size_t bytes) {
  ++allocations;
  return __libc_calloc(count, bytes);
}
void *realloc(void *p, size_t bytes) {
  ++allocations;
  return __libc_realloc(p, bytes);
}
void *aligned_alloc(size_t alignment, size_t bytes) {
  ++allocations;
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void **out, size_t alignment, size_t bytes) {
  ++allocations;
  *out = __libc_memalign(alignment, bytes);
  return *out ? 0 : ENOMEM;
}
#endif

static void must(NitiStatus status) {
  if (status != NITI_OK) fail_msg("%s", niti_error());
}

typedef struct Run {
  NitiRecipe *recipe;
  NitiBackend *backend;
  NitiNetwork *net;
  NitiFeed *feed;
  uint8_t images[IMAGES * 20 * 18 * 3];
  NitiSample samples[BATCH];
  int32_t labels[BATCH];
  uint32_t step;
} Run;

static void open_run(Run *r, const char *more, int threads) {
  char text[512];
  NitiDescription *description = NULL;
  memset(r, 0, sizeof *r);
  (void)snprintf(text, sizeof text, "name: test\nmodel: test\nbatch: %d\nepochs: 1\nupdate: {kind: niti, mu: 4}\n%s", BATCH,
                 more);
  must(niti_description_parse(&description, every_layer, "a test's model", NULL));
  must(niti_recipe_parse(&r->recipe, text, "a test's recipe", NULL, 0, description->text));
  niti_description_close(description);
  const NitiBackendOptions options = {.name = "cpu", .threads = threads};
  must(niti_backend_open(&r->backend, &options));
  const NitiLowerOptions network = niti_recipe_lowering(r->recipe, BATCH, true);
  must(niti_network_open(&r->net, r->recipe->model, r->backend, &network));
  must(niti_network_init(r->net, 1));
  const int32_t mean[NITI_CHANNELS_MAX] = {500000, 500000, 500000}, std[NITI_CHANNELS_MAX] = {250000, 250000, 250000};
  must(niti_feed_open(&r->feed, r->backend, BATCH));
  must(niti_network_set_input(r->net, mean, std));
  for (size_t i = 0; i < sizeof r->images; ++i) r->images[i] = (uint8_t)(i * 2654435761u >> 13);
}

static void step(Run *r, int count, bool training) {
  const NitiStepContext context = {r->recipe, r->net, r->feed, NULL, NULL};
  for (int i = 0; i < count; ++i) {
    r->samples[i] =
        (NitiSample){.image = (r->step * 7u + (uint32_t)i) % IMAGES, .dy = (int16_t)(i % 5 - 2), .flip = (uint32_t)i & 1};
    r->labels[i] = i % 7;
  }
  const NitiBatch batch = {.count = count,
                           .images = r->images,
                           .resident = true,
                           .total = IMAGES,
                           .source = r->recipe->model->input,
                           .samples = r->samples,
                           .labels = r->labels};
  must(training ? niti_step_train(&context, &batch, r->step) : niti_step_test(&context, &batch));
  ++r->step;
}

static void close_run(Run *r) {
  niti_feed_close(r->feed);
  niti_network_close(r->net);
  niti_backend_close(r->backend);
  niti_recipe_close(r->recipe);
}

static void a_step_allocates_nothing(void **state) {
  static const char *const recipes[] = {"loss: niti\n",
                                        "loss: softmax\nrounding: {activation: stochastic, error: pseudo-stochastic}\n"};
  static Run r;
  (void)state;
  if (!COUNTS) {
    print_message("skipped: a sanitizer's allocator cannot be counted\n");
    skip();
  }
  for (int i = 0; i < 4; ++i) {
    open_run(&r, recipes[i % 2], 1 + i / 2);
    step(&r, BATCH, true); /* the threads have started */
    step(&r, LAST, true);  /* a smaller batch is prepared when it is first met */
    step(&r, LAST, false);
    const long before = allocations;
    assert_true(before > 0); /* the count works */
    for (int k = 0; k < 3; ++k) step(&r, k == 1 ? LAST : BATCH, true);
    for (int k = 0; k < 2; ++k) step(&r, k == 1 ? LAST : BATCH, false);
    assert_int_equal(allocations - before, 0);
    close_run(&r);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_step_allocates_nothing)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
