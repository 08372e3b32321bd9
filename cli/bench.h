/* Between the files of niti bench: a network at work on made-up images, and how its work is timed. */
#ifndef NITI_CLI_BENCH_H
#define NITI_CLI_BENCH_H

#include "cli.h"
#include "platform/clock.h"
#include "train/step.h"

enum { RUNS_MIN = 5, RUNS_MAX = 1000 };

typedef struct Bench {
  NitiRecipe *recipe;
  NitiBackend *backend;
  NitiNetwork *net;
  NitiFeed *feed;
  NitiBatch batch;
  NitiBindings bindings; /* of the last step */
  uint8_t *images;
  NitiSample *samples;
  int32_t *labels;
  uint32_t step;
} Bench;

typedef struct Times {
  double milliseconds[RUNS_MAX]; /* of one piece of work */
  int count;
  double min, median, max;
} Times;

/* Enqueues `repeat` pieces of work. */
typedef NitiStatus (*Timed)(void *context, int repeat);

/* Opens a network with random images, to be closed even after a failure. model: a description's text. */
NitiStatus bench_open(Bench *bench, const char *model, int64_t batch, bool training, const NitiBackendOptions *backend);
void bench_close(Bench *bench);
/* Milliseconds of one piece of work, `repeat` of them having been done. */
NitiStatus time_once(double *milliseconds, Timed timed, NitiBackend *backend, void *context, int repeat);
void times_sort(Times *times); /* and finds the least, the greatest and the median */
/* Runs to warm up, then for about `seconds`, at least five times. Where work is queued, a run is as many pieces as take a few
 * milliseconds, and ends when the device has done them. */
NitiStatus measure(Times *times, Timed timed, NitiBackend *backend, void *context, double seconds);
/* One training step. */
NitiStatus bench_step(Bench *bench);
/* Prints a table of every operation of a step, or one JSON object; returns the exit code. */
int bench_kernels(Bench *bench, const char *model, double seconds, bool json);

/* Prints when each operation of a training step begins and how long it takes, or one JSON object; returns the exit code. */
int bench_timeline(Bench *bench, const char *model, bool json);

#endif
