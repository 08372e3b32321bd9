/* The pool, the loader and the saver with 1 to 64 threads, while signals arrive at random moments; for the thread sanitizer too.
 * NITI_TEST_SLOW=N: N times, with as many savers as threads; otherwise at most 16 of them. */
/* clang-format off */
#include "data_files.h" /* first */
/* clang-format on */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "data/loader.h"
#include "platform/threads.h"
#include "train/saver.h"

enum { SIDE = 8, IMAGES = 48, BATCH = 7, ITEMS = 300, RUNS = 40, SAVES = 12, ELEMENTS = 3000 };
static const int counts[] = {1, 2, 3, 4, 8, 16, 32, 64};
enum { COUNTS = sizeof counts / sizeof *counts };

static int slow(void) {
  const char *times = getenv("NITI_TEST_SLOW");
  return times ? atoi(times) : 0;
}

/* ---- signals ---- */

static atomic_long caught;
static atomic_bool quiet;

static void on_signal(int number) {
  (void)number;
  atomic_fetch_add(&caught, 1);
}

static void *send_signals(void *context) {
  uint32_t draw = 1;
  (void)context;
  while (!atomic_load(&quiet)) {
    const struct timespec pause = {0, (draw = draw * 1664525u + 1013904223u) % 400000};
    (void)kill(getpid(), draw >> 20 & 1 ? SIGUSR1 : SIGUSR2);
    (void)nanosleep(&pause, NULL);
  }
  return NULL;
}

/* Runs body while a thread sends signals, whose handlers do not restart system calls. */
static void with_signals(void (*body)(int threads)) {
  struct sigaction action = {.sa_handler = on_signal};
  pthread_t sender;
  assert_int_equal(sigaction(SIGUSR1, &action, NULL) | sigaction(SIGUSR2, &action, NULL), 0);
  atomic_store(&quiet, false);
  assert_int_equal(pthread_create(&sender, NULL, send_signals, NULL), 0);
  const long before = atomic_load(&caught);
  for (int i = 0; i < COUNTS; ++i) body(counts[i]);
  atomic_store(&quiet, true);
  pthread_join(sender, NULL);
  assert_true(atomic_load(&caught) > before);
}

/* ---- the pool ---- */

typedef struct Work {
  int done[ITEMS]; /* each item is one thread's: no atomics, so that a missing order shows */
  int run;
} Work;

static void take_item(void *context, size_t thread, size_t item) {
  Work *work = context;
  (void)thread;
  work->done[item] += work->run;
}

static void run_pool(int threads) {
  static Work work;
  NitiThreads *pool = NULL;
  int sum = 0;
  memset(&work, 0, sizeof work);
  assert_int_equal(niti_threads_open(&pool, threads), NITI_OK);
  for (work.run = 1; work.run <= RUNS; ++work.run) {
    niti_threads_run(pool, take_item, &work, ITEMS);
    sum += work.run;
    for (int i = 0; i < ITEMS; ++i) assert_int_equal(work.done[i], sum);
  }
  niti_threads_close(pool);
}

static void test_pool(void **state) {
  (void)state;
  with_signals(run_pool);
}

/* ---- the loader ---- */

static NitiDataset *images;

static uint64_t hash_batch(uint64_t hash, const NitiBatch *batch) {
  const size_t image = (size_t)batch->source.h * (size_t)batch->source.w;
  for (int i = 0; i < batch->count; ++i) {
    const uint8_t *pixels = batch->images + (size_t)batch->samples[i].image * image;
    for (size_t p = 0; p < image; ++p) hash = (hash ^ pixels[p]) * 0x100000001b3u;
    hash = (hash ^ (uint32_t)batch->labels[i] ^ (batch->samples[i].flip ? 8u : 0u)) * 0x100000001b3u;
  }
  return hash;
}

static uint64_t hash_epochs(int threads) {
  const NitiDataOptions data = {.random_crop = true, .flip = true};
  const NitiLoaderOptions options = {
      .split = NITI_TRAIN, .input = {1, SIDE, SIDE, 1}, .batch = BATCH, .seed = 19, .augment = true, .workers = threads};
  NitiLoader *loader = NULL;
  uint64_t hash = 0xcbf29ce484222325u;
  if (niti_loader_open(&loader, images, &data, &options) != NITI_OK) fail_msg("%s", niti_error());
  for (uint32_t epoch = 0; epoch < 3; ++epoch) {
    const int64_t first = epoch == 1 ? 3 : 0; /* as after a resume: what was prepared is thrown away */
    assert_int_equal(niti_loader_start(loader, epoch, first), NITI_OK);
    for (int64_t b = first; b < niti_loader_steps(loader); ++b) {
      NitiBatch batch;
      if (niti_loader_next(loader, &batch) != NITI_OK) fail_msg("%s", niti_error());
      hash = hash_batch(hash, &batch);
    }
  }
  niti_loader_close(loader);
  return hash;
}

static void run_loader(int threads) {
  static uint64_t expected;
  const NitiDataOptions data = {0};
  const NitiLoaderOptions options = {.split = NITI_TRAIN, .input = {1, SIDE, SIDE, 1}, .batch = BATCH, .workers = threads};
  NitiLoader *loader = NULL;
  NitiBatch batch;
  const uint64_t hash = hash_epochs(threads);
  if (threads == 1) expected = hash;
  assert_true(hash == expected);
  for (int taken = 0; taken < 4; ++taken) { /* closed while workers decode */
    assert_int_equal(niti_loader_open(&loader, images, &data, &options), NITI_OK);
    if (taken > 0) assert_int_equal(niti_loader_start(loader, 0, 0), NITI_OK);
    for (int i = 1; i < taken; ++i) assert_int_equal(niti_loader_next(loader, &batch), NITI_OK);
    niti_loader_close(loader);
  }
}

static void test_loader(void **state) {
  char *dir = make_temp();
  const NitiDataOptions options = {.kind = NITI_DATA_FOLDER};
  const NitiDataRequest request = {.size = {1, SIDE, SIDE, 1}, .need = NITI_SPLIT_BIT(NITI_TRAIN)};
  (void)state;
  put_dir(path_of("%s/train", dir));
  for (int c = 0; c < 3; ++c) put_dir(path_of("%s/train/%c", dir, 'a' + c));
  for (int i = 0; i < IMAGES; ++i) {
    uint8_t pixels[SIDE * SIDE];
    for (int p = 0; p < SIDE * SIDE; ++p) pixels[p] = (uint8_t)(i * 31 + p * 7);
    put_png(path_of("%s/train/%c/%02d.png", dir, 'a' + i % 3, i), SIDE, SIDE, 1, pixels);
  }
  if (niti_dataset_open(&images, dir, &options, &request) != NITI_OK) fail_msg("%s", niti_error());
  with_signals(run_loader);
  niti_dataset_close(images);
  remove_temp(dir);
}

/* ---- the saver ---- */

static char *saved_in;

static NitiCheckpoint *make_checkpoint(int8_t *weights, int step) {
  NitiCheckpoint *checkpoint = NULL;
  const uint32_t dims[] = {ELEMENTS};
  char text[16];
  snprintf(text, sizeof text, "%d", step);
  for (int i = 0; i < ELEMENTS; ++i) weights[i] = (int8_t)((i + step) % 100);
  assert_int_equal(niti_checkpoint_open(&checkpoint), NITI_OK);
  assert_int_equal(niti_checkpoint_add(checkpoint, "a.weight", NITI_I8, 1, dims, 0, weights), NITI_OK);
  assert_int_equal(niti_checkpoint_set(checkpoint, "step", text), NITI_OK);
  return checkpoint;
}

/* `threads` savers at once, each in a folder of its own, as runs in one process have them. */
static void run_savers(int threads) {
  static int8_t weights[64][2][ELEMENTS];
  NitiSaver *savers[64];
  NitiRunFolder *runs[64];
  char folders[64][600];
  if (threads > 16 && !slow()) return; /* a disk has only so much time */
  for (int t = 0; t < threads; ++t) {
    snprintf(folders[t], sizeof folders[t], "%s/%d-%d", saved_in, threads, t);
    assert_int_equal(niti_run_folder_create(&runs[t], folders[t]), NITI_OK);
    assert_int_equal(niti_saver_open(&savers[t], runs[t]), NITI_OK);
  }
  for (int step = 0; step < SAVES; ++step) {
    for (int t = 0; t < threads; ++t) {
      NitiCheckpoint *checkpoint = make_checkpoint(weights[t][step % 2], step);
      if (niti_saver_begin(savers[t], checkpoint, step % 4, step) != NITI_OK) fail_msg("%s", niti_error());
      if (step % 3 == 0 && niti_saver_wait(savers[t]) != NITI_OK) fail_msg("%s", niti_error());
    }
  }
  for (int t = 0; t < threads; ++t) {
    NitiCheckpoint *checkpoint = NULL;
    bool previous = true;
    assert_int_equal(niti_saver_wait(savers[t]), NITI_OK);
    niti_saver_close(savers[t]);
    niti_run_folder_close(runs[t]);
    if (niti_checkpoint_load_last(&checkpoint, &previous, folders[t]) != NITI_OK) fail_msg("%s", niti_error());
    assert_false(previous);
    assert_int_equal(atoi(niti_checkpoint_get(checkpoint, "step")), SAVES - 1);
    niti_checkpoint_close(checkpoint);
  }
}

static void test_saver(void **state) {
  (void)state;
  saved_in = make_temp();
  with_signals(run_savers);
  remove_temp(saved_in);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_pool), cmocka_unit_test(test_loader), cmocka_unit_test(test_saver)};
  int failed = 0;
  for (int i = slow() > 1 ? slow() : 1; i > 0 && !failed; --i) failed = cmocka_run_group_tests(tests, NULL, NULL);
  return failed;
}
