/* Batches, prepared ahead of the step that takes them. */
#include "data/loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/augment.h"
#include "data/values.h"
#include "data/watch.h"
#include "platform/workers.h"

/* Batches have running numbers; number s is prepared in slot s % SLOTS. Workers take the items of one batch after the other and
 * open the next batch when its slot is free; the caller takes batches in order and holds one until it asks for the next. After an
 * epoch's last batch comes the next epoch's first. Resident images need no decoding: then the caller fills slot 0 by itself. */
enum { SLOTS = 3, WORKERS_MAX = 1024, GREY_UNKNOWN = UINT16_MAX };

typedef struct Slot {
  uint32_t epoch;
  int32_t count; /* images: of the portion */
  int32_t ahead; /* 1: then comes one more, which the last is mixed with; or 0 */
  int32_t whole; /* of the batch */
  NitiPortion portion;
  int32_t pending; /* of them, not decoded yet */
  int32_t failed;  /* the first item that failed, or -1; its status and message: */
  NitiStatus status;
  char message[1024];
  uint32_t *index;     /* [batch + 1]: images' numbers in the split */
  NitiSample *samples; /* [batch + 1] */
  int32_t *labels;     /* [batch + 1] */
  uint8_t *images;     /* [batch + 1][H][W][C]; NULL where images are resident */
} Slot;

struct NitiLoader {
  const NitiDataset *dataset;
  NitiDataOptions data;
  NitiLoaderOptions options;
  const uint8_t *resident;     /* the split's images, or NULL: they are made */
  const NitiDataSplit *values; /* of int8 or int16, to be normalised; or NULL */
  const NitiDataSplit *whole;  /* whose images are read as they are in the files, for samples to choose from; or NULL: decode */
  uint16_t *grey;              /* [stored] of resident images: their mean grey, or GREY_UNKNOWN; NULL where none is wanted */
  NitiShape source;
  int64_t all, count, steps; /* images of the split, those of them that are taken, and their batches */
  Slot slots[SLOTS];

  /* The caller's side. */
  bool started;
  uint32_t epoch;
  int64_t position; /* the next batch */
  int64_t watched;  /* when the data set's watch was called last */

  /* The preparing side; under the lock where there are workers. */
  uint32_t *order; /* the permutation of order_epoch; NULL without augmentation */
  bool order_known;
  uint32_t order_epoch;
  uint32_t next_epoch; /* the batch to be opened next */
  int64_t next_batch;

  NitiWorkers workers;
  bool lock_made, work_made, done_made;
  pthread_mutex_t lock;
  pthread_cond_t work, done; /* there may be something to take; something was finished */
  uint64_t opened, taken;    /* batches opened by workers; taken, and if `held` not given back yet, by the caller */
  bool held;
  int32_t item; /* the next item of the batch opened last */
  int32_t busy; /* workers decoding */
  bool paused, closing;
};

/* ---- preparing a batch ---- */

static NitiWindow window_of(const NitiLoader *loader, uint32_t epoch, uint32_t image) {
  if (!loader->options.augment) return (NitiWindow){.centre = true};
  if (loader->data.resized_crop) return niti_resized_draw(loader->options.seed, epoch, image);
  if (loader->data.random_crop) return niti_window_draw(loader->options.seed, epoch, image);
  return (NitiWindow){.centre = true};
}

static bool is_flipped(const NitiLoader *loader, uint32_t epoch, uint32_t image) {
  return loader->options.augment && loader->data.flip && niti_flip_draw(loader->options.seed, epoch, image);
}

/* What happens to an image beside its window. grey: of the source image. */
static void augment(const NitiLoader *loader, NitiSample *sample, uint32_t epoch, uint32_t image, uint16_t grey) {
  const NitiLoaderOptions *options = &loader->options;
  sample->flip = is_flipped(loader, epoch, image);
  if (!options->augment) return;
  sample->share = niti_share_draw(&loader->data, options->seed, epoch, image);
  niti_cutout_draw(sample, &loader->data, options->input, options->seed, epoch, image);
  niti_colours_draw(sample, &loader->data, grey, options->seed, epoch, image);
}

/* The mean grey of a resident image; each is summed once. */
static uint16_t grey_of(NitiLoader *loader, int64_t place) {
  const NitiShape s = loader->source;
  if (!loader->grey) return 0;
  if (loader->grey[place] == GREY_UNKNOWN)
    loader->grey[place] = niti_image_grey(loader->resident + (size_t)place * niti_shape_image(s), (int64_t)s.h * s.w, s.c);
  return loader->grey[place];
}

static void place_window(const NitiLoader *loader, NitiSample *sample, const NitiWindow *window) {
  const NitiShape source = loader->source, input = loader->options.input;
  const NitiDataOptions *data = &loader->data;
  if (window->resized) {
    const NitiRectangle r = niti_rectangle(data->scale, data->aspect, source.h, source.w, window->words);
    sample->dy = (int16_t)r.y;
    sample->dx = (int16_t)r.x;
    sample->h = (uint16_t)r.h;
    sample->w = (uint16_t)r.w;
  } else {
    sample->dy = (int16_t)niti_window_start(source.h, data->pad, input.h, window->centre, window->word_y);
    sample->dx = (int16_t)niti_window_start(source.w, data->pad, input.w, window->centre, window->word_x);
  }
}

/* Of a whole source image, the number `at` of those that the batch refers to. */
static NitiSample make_sample(const NitiLoader *loader, uint32_t epoch, uint32_t image, int64_t at, uint16_t grey) {
  const NitiWindow window = window_of(loader, epoch, image);
  NitiSample sample = {.image = (uint32_t)at};
  place_window(loader, &sample, &window);
  augment(loader, &sample, epoch, image, grey);
  return sample;
}

static NitiSample make_resident(NitiLoader *loader, uint32_t epoch, uint32_t image) {
  const int64_t place = niti_dataset_place(loader->dataset, loader->options.split, image);
  return make_sample(loader, epoch, image, place, grey_of(loader, place));
}

static int32_t label_of(const NitiLoader *loader, uint32_t epoch, uint32_t image) {
  const int32_t label = niti_dataset_label(loader->dataset, loader->options.split, image);
  if (!loader->options.augment) return label;
  const int32_t share = niti_share_draw(&loader->data, loader->options.seed, epoch, image);
  return label | (int32_t)((uint32_t)share << NITI_LABEL_SHARE_BIT);
}

/* Chooses the images of the next batch, and steps on to the one after it. */
static void open_batch(NitiLoader *loader, Slot *slot) {
  const int64_t begin = loader->next_batch * loader->options.batch, left = loader->count - begin;
  slot->epoch = loader->next_epoch;
  slot->whole = (int32_t)(left < loader->options.batch ? left : loader->options.batch);
  slot->portion = niti_portion(slot->whole, loader->options.rank, loader->options.ranks > 0 ? loader->options.ranks : 1);
  slot->count = slot->portion.count;
  slot->ahead = loader->options.ranks > 0 && loader->options.augment && loader->data.mixup != NITI_MIXUP_NONE;
  slot->pending = slot->count + slot->ahead;
  slot->failed = -1;
  slot->status = NITI_OK;
  if (loader->order && !(loader->order_known && loader->order_epoch == slot->epoch)) {
    niti_order_shuffle(loader->order, loader->count, loader->options.seed, slot->epoch);
    loader->order_epoch = slot->epoch;
    loader->order_known = true;
  }
  for (int32_t i = 0; i < slot->count + slot->ahead; ++i) {
    const int64_t at = begin + (slot->portion.first + i) % slot->whole;
    slot->index[i] = loader->order ? loader->order[at] : (uint32_t)(at * loader->all / loader->count);
    slot->labels[i] = label_of(loader, slot->epoch, slot->index[i]);
    if (loader->resident) slot->samples[i] = make_resident(loader, slot->epoch, slot->index[i]);
  }
  if (++loader->next_batch == loader->steps) {
    loader->next_batch = 0;
    ++loader->next_epoch;
  }
}

/* Reads one whole image of a batch. */
static NitiStatus read_item(const NitiLoader *loader, Slot *slot, int32_t item) {
  const NitiShape s = loader->source;
  const uint32_t image = slot->index[item];
  uint8_t *room = slot->images + (size_t)item * niti_shape_image(s);
  const void *pixels;
  NITI_TRY(niti_split_sample(&pixels, room, loader->dataset, loader->whole,
                             niti_dataset_place(loader->dataset, loader->options.split, image)));
  const bool wants_grey = loader->options.augment && loader->data.contrast > 0;
  const uint16_t grey = wants_grey ? niti_image_grey(pixels, (int64_t)s.h * s.w, s.c) : 0;
  slot->samples[item] = make_sample(loader, slot->epoch, image, item, grey);
  return NITI_OK;
}

/* Decodes one image of a batch, cropped already; the rest is left to the sample. */
static NitiStatus decode_item(const NitiLoader *loader, Slot *slot, int32_t item) {
  const NitiLoaderOptions *options = &loader->options;
  const uint32_t image = slot->index[item];
  const NitiWindow window = window_of(loader, slot->epoch, image);
  uint8_t *out = slot->images + (size_t)item * niti_shape_image(loader->source);
  uint16_t grey = 0;
  if (loader->values) {
    const int64_t place = niti_dataset_place(loader->dataset, options->split, image);
    NITI_TRY(niti_values_window((int8_t *)out, loader->dataset, loader->values, place, &loader->data, loader->source, window));
  } else {
    NITI_TRY(niti_dataset_read_window(loader->dataset, options->split, image, &window,
                                      options->augment && loader->data.contrast > 0 ? &grey : NULL, out));
  }
  slot->samples[item] = (NitiSample){.image = (uint32_t)item};
  augment(loader, &slot->samples[item], slot->epoch, image, grey);
  return NITI_OK;
}

/* ---- workers ---- */

/* Takes an item, opening a batch where one can be opened; NULL: none now. The lock is held. */
static Slot *take_item(NitiLoader *loader, int32_t *item) {
  if (loader->paused) return NULL;
  if (loader->opened > 0) {
    Slot *slot = &loader->slots[(loader->opened - 1) % SLOTS];
    if (loader->item < slot->count + slot->ahead) {
      *item = loader->item++;
      return slot;
    }
  }
  const uint64_t given_back = loader->taken - (loader->held ? 1 : 0);
  if (loader->opened - given_back >= SLOTS) return NULL;
  Slot *slot = &loader->slots[loader->opened++ % SLOTS];
  open_batch(loader, slot);
  pthread_cond_broadcast(&loader->work); /* a whole batch of items: the other workers are wanted */
  *item = 0;
  loader->item = 1;
  return slot;
}

static void *run_worker(void *context) {
  NitiLoader *loader = context;
  pthread_mutex_lock(&loader->lock);
  while (!loader->closing) {
    int32_t item = 0;
    Slot *slot = take_item(loader, &item);
    if (!slot) {
      pthread_cond_wait(&loader->work, &loader->lock);
      continue;
    }
    ++loader->busy;
    pthread_mutex_unlock(&loader->lock);
    const NitiStatus status = loader->whole ? read_item(loader, slot, item) : decode_item(loader, slot, item);
    pthread_mutex_lock(&loader->lock);
    --loader->busy;
    --slot->pending;
    if (status != NITI_OK && (slot->status == NITI_OK || item < slot->failed)) {
      slot->status = status;
      slot->failed = item;
      (void)snprintf(slot->message, sizeof slot->message, "%s", niti_error());
    }
    if (slot->pending == 0 || loader->busy == 0) pthread_cond_signal(&loader->done);
  }
  pthread_mutex_unlock(&loader->lock);
  return NULL;
}

/* ---- open and close ---- */

/* What only images have. */
static NitiStatus check_images(const NitiDataOptions *data, NitiShape input) {
  const char *what = data->resized_crop ? "crop: resized" : "colour jitter (data.brightness, data.contrast, data.saturation)";
  if (data->type != NITI_UINT8 && (data->resized_crop || niti_data_jitters(data)))
    return niti_fail(NITI_ERROR_ARGUMENT, "%s is for images of uint8, but the network takes %s (data.type)", what,
                     niti_data_type_name(data->type));
  if ((niti_data_jitters(data) && input.c != 1 && input.c != 3) || (data->saturation > 0 && input.c != 3))
    return niti_fail(NITI_ERROR_ARGUMENT, "%s is for images of %s, but the network takes %d", "colour jitter",
                     data->saturation > 0 ? "3 channels (data.saturation)" : "1 or 3 channels", input.c);
  return NITI_OK;
}

static NitiStatus check_fit(const NitiDataset *dataset, const NitiDataOptions *data, const NitiLoaderOptions *options) {
  const NitiShape source = niti_dataset_shape(dataset), input = options->input;
  const int32_t pad = data->pad;
  if (options->batch < 1) return niti_fail(NITI_ERROR_ARGUMENT, "batch size %d, expected at least 1", options->batch);
  if (options->workers < 0 || options->workers > WORKERS_MAX)
    return niti_fail(NITI_ERROR_ARGUMENT, "%d decoding threads, expected 0 (one per core) to %d", options->workers, WORKERS_MAX);
  NITI_TRY(niti_data_options_check(data));
  if (niti_dataset_count(dataset, options->split) < 1)
    return niti_fail(NITI_ERROR_ARGUMENT, "no %s images", niti_split_name(options->split));
  if (data->type != niti_dataset_type(dataset))
    return niti_fail(NITI_ERROR_ARGUMENT, "values of %s, but the network takes %s (data.type)",
                     niti_data_type_name(niti_dataset_type(dataset)), niti_data_type_name(data->type));
  NITI_TRY(check_images(data, input));
  const bool stored = !niti_dataset_is_folder(dataset);
  const bool fits =
      stored ? source.h + 2 * pad >= input.h && source.w + 2 * pad >= input.w : source.h == input.h && source.w == input.w;
  if (input.h < 1 || input.w < 1 || source.c != input.c || !fits)
    return niti_fail(NITI_ERROR_ARGUMENT,
                     "images of %dx%dx%d (height x width x channels)%s do not fit the network's input %dx%dx%d", source.h,
                     source.w, source.c, pad > 0 && stored ? " with padding" : "", input.h, input.w, input.c);
  return NITI_OK;
}

static NitiStatus make_slots(NitiLoader *loader) {
  const int32_t whole = loader->options.batch < loader->count ? loader->options.batch : (int32_t)loader->count;
  const size_t batch = (size_t)niti_portion_most(whole, loader->options.ranks > 0 ? loader->options.ranks : 1) + 1;
  const size_t image = niti_shape_image(loader->source);
  for (int i = 0; i < (loader->resident ? 1 : SLOTS); ++i) {
    Slot *slot = &loader->slots[i];
    slot->index = calloc(batch, sizeof *slot->index);
    slot->samples = calloc(batch, sizeof *slot->samples);
    slot->labels = calloc(batch, sizeof *slot->labels);
    slot->images = loader->resident ? NULL : calloc(batch, image);
    if (!slot->index || !slot->samples || !slot->labels || (!slot->images && !loader->resident))
      return niti_fail(NITI_ERROR_MEMORY, "out of memory for batches of %zu images", batch);
  }
  if (loader->options.augment) {
    loader->order = malloc((size_t)loader->count * sizeof *loader->order);
    if (!loader->order)
      return niti_fail(NITI_ERROR_MEMORY, "out of memory for the order of %lld images", (long long)loader->count);
  }
  if (!loader->resident || !loader->options.augment || loader->data.contrast == 0) return NITI_OK;
  const size_t stored = (size_t)niti_dataset_stored(loader->dataset, loader->options.split);
  loader->grey = malloc(stored * sizeof *loader->grey);
  if (!loader->grey) return niti_fail(NITI_ERROR_MEMORY, "out of memory for the grey of %zu images", stored);
  for (size_t i = 0; i < stored; ++i) loader->grey[i] = GREY_UNKNOWN;
  return NITI_OK;
}

static NitiStatus start_workers(NitiLoader *loader) {
  loader->lock_made = pthread_mutex_init(&loader->lock, NULL) == 0;
  loader->work_made = pthread_cond_init(&loader->work, NULL) == 0;
  loader->done_made = pthread_cond_init(&loader->done, NULL) == 0;
  if (!loader->lock_made || !loader->work_made || !loader->done_made)
    return niti_fail(NITI_ERROR_MEMORY, "cannot make a lock for the loader");
  loader->paused = true; /* until niti_loader_start */
  return niti_workers_start(&loader->workers, loader->options.workers, run_worker, loader);
}

NitiStatus niti_loader_open(NitiLoader **out, const NitiDataset *dataset, const NitiDataOptions *data,
                            const NitiLoaderOptions *options) {
  *out = NULL;
  NITI_TRY(check_fit(dataset, data, options));
  NitiLoader *loader = calloc(1, sizeof *loader);
  if (!loader) return niti_fail(NITI_ERROR_MEMORY, "out of memory for a loader");
  loader->dataset = dataset;
  loader->data = *data;
  loader->options = *options;
  loader->resident = niti_dataset_images(dataset, options->split);
  loader->source = niti_dataset_shape(dataset);
  if (niti_dataset_type(dataset) != NITI_UINT8) {
    loader->values = &dataset->split[options->split];
    loader->source = options->input;
  } else if (!loader->resident && !niti_dataset_is_folder(dataset)) {
    loader->whole = &dataset->split[options->split];
  }
  loader->all = loader->count = niti_dataset_count(dataset, options->split);
  if (options->limit > 0 && options->limit < loader->all) loader->count = options->limit;
  loader->steps = (loader->count + options->batch - 1) / options->batch;
  NitiStatus status = make_slots(loader);
  if (status == NITI_OK && !loader->resident) status = start_workers(loader);
  if (status != NITI_OK) {
    niti_loader_close(loader);
    return status;
  }
  *out = loader;
  return NITI_OK;
}

void niti_loader_close(NitiLoader *loader) {
  if (!loader) return;
  if (loader->workers.count > 0) {
    pthread_mutex_lock(&loader->lock);
    loader->closing = true;
    pthread_cond_broadcast(&loader->work);
    pthread_mutex_unlock(&loader->lock);
    niti_workers_join(&loader->workers);
  }
  if (loader->done_made) pthread_cond_destroy(&loader->done);
  if (loader->work_made) pthread_cond_destroy(&loader->work);
  if (loader->lock_made) pthread_mutex_destroy(&loader->lock);
  for (int i = 0; i < SLOTS; ++i) {
    free(loader->slots[i].index);
    free(loader->slots[i].samples);
    free(loader->slots[i].labels);
    free(loader->slots[i].images);
  }
  free(loader->grey);
  free(loader->order);
  free(loader);
}

int64_t niti_loader_steps(const NitiLoader *loader) { return loader->steps; }
int64_t niti_loader_images(const NitiLoader *loader) { return loader->count; }

/* ---- the caller's side ---- */

NitiStatus niti_loader_start(NitiLoader *loader, uint32_t epoch, int64_t first_batch) {
  if (first_batch < 0 || first_batch > loader->steps)
    return niti_fail(NITI_ERROR_ARGUMENT, "batch %lld is not in 0..%lld", (long long)first_batch, (long long)loader->steps);
  /* What follows an epoch is being prepared already; without augmentation every epoch is the same. */
  const bool follows = loader->started && loader->position == loader->steps && first_batch == 0 &&
                       (!loader->options.augment || epoch == loader->epoch + 1);
  loader->started = true;
  loader->epoch = epoch;
  loader->position = first_batch;
  if (loader->resident) {
    loader->next_epoch = epoch;
    loader->next_batch = first_batch;
    return NITI_OK;
  }
  if (follows) return NITI_OK;
  pthread_mutex_lock(&loader->lock);
  loader->paused = true;
  while (loader->busy > 0) pthread_cond_wait(&loader->done, &loader->lock);
  loader->opened = loader->taken = 0;
  loader->held = false;
  loader->item = 0;
  loader->next_epoch = first_batch < loader->steps ? epoch : epoch + 1;
  loader->next_batch = first_batch < loader->steps ? first_batch : 0;
  loader->paused = false;
  pthread_cond_broadcast(&loader->work);
  pthread_mutex_unlock(&loader->lock);
  return NITI_OK;
}

/* Waits a moment for the workers and calls the watch. The lock is held. */
static NitiStatus wait_watching(NitiLoader *loader) {
  niti_watch_wait(&loader->done, &loader->lock);
  pthread_mutex_unlock(&loader->lock);
  const NitiStatus status =
      niti_watch(&loader->dataset->request.watch, &loader->watched, "waiting for images", loader->position, loader->steps);
  pthread_mutex_lock(&loader->lock);
  return status;
}

/* Waits for the next batch of the workers and takes it, giving the last one back; slot NULL: only gives it back. */
static NitiStatus take_batch(NitiLoader *loader, Slot **slot) {
  NitiStatus status = NITI_OK;
  pthread_mutex_lock(&loader->lock);
  if (loader->held) {
    loader->held = false;
    pthread_cond_broadcast(&loader->work);
  }
  if (slot) {
    Slot *wanted = &loader->slots[loader->taken % SLOTS];
    while (status == NITI_OK && (loader->opened <= loader->taken || wanted->pending > 0)) status = wait_watching(loader);
    if (status != NITI_OK) {
      /* interrupted */
    } else if (wanted->status == NITI_OK) {
      ++loader->taken;
      loader->held = true;
      *slot = wanted;
    } else {
      status = niti_fail(wanted->status, "%s", wanted->message);
    }
  }
  pthread_mutex_unlock(&loader->lock);
  return status;
}

NitiStatus niti_loader_next(NitiLoader *loader, NitiBatch *out) {
  Slot *slot = &loader->slots[0];
  memset(out, 0, sizeof *out);
  if (!loader->started) return niti_fail(NITI_ERROR_ARGUMENT, "the loader has no epoch: niti_loader_start comes first");
  if (loader->position == loader->steps) return loader->resident ? NITI_OK : take_batch(loader, NULL);
  if (loader->resident)
    open_batch(loader, slot);
  else
    NITI_TRY(take_batch(loader, &slot));
  ++loader->position;
  out->count = slot->count;
  out->whole = loader->options.ranks > 0 ? slot->whole : 0;
  out->first = slot->portion.first;
  out->idle = slot->portion.idle;
  out->ahead = slot->ahead;
  out->images = loader->resident ? loader->resident : slot->images;
  out->resident = loader->resident != NULL;
  out->total = loader->resident ? niti_dataset_stored(loader->dataset, loader->options.split) : 0;
  out->source = loader->source;
  out->samples = slot->samples;
  out->labels = slot->labels;
  return NITI_OK;
}
