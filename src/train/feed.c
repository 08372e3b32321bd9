#include "train/feed.h"

#include <stdlib.h>

enum { RESIDENT_SETS = 2 }; /* the training and the test split */

typedef struct Copy {
  const uint8_t *host;
  void *device;
} Copy;

struct NitiFeed {
  NitiBackend *backend;
  int8_t *table; /* [C][256], backend memory */
  int32_t exponent;
  NitiPick *picks;
  int32_t *labels;
  Copy resident[RESIDENT_SETS];
  void *streamed; /* room for one batch's images, made when first needed */
  size_t streamed_bytes;
  int32_t batch;
};

NitiStatus niti_feed_open(NitiFeed **out, NitiBackend *backend, NitiShape input, int32_t batch, const int32_t *mean,
                          const int32_t *std) {
  *out = NULL;
  int8_t table[NITI_CHANNELS_MAX * 256];
  int32_t exponent;
  if (input.c > NITI_CHANNELS_MAX)
    return niti_fail(NITI_ERROR_MODEL, "an input of %d channels (expected at most %d)", input.c, NITI_CHANNELS_MAX);
  NITI_TRY(niti_input_table(table, &exponent, input.c, mean, std));
  NitiFeed *feed = calloc(1, sizeof *feed);
  if (!feed) return niti_fail(NITI_ERROR_MEMORY, "out of memory for the input");
  feed->backend = backend;
  feed->exponent = exponent;
  feed->batch = batch;
  const size_t table_bytes = (size_t)input.c * 256;
  void *memory[3] = {NULL, NULL, NULL};
  const size_t bytes[3] = {table_bytes, (size_t)batch * sizeof(NitiPick), (size_t)batch * sizeof(int32_t)};
  NitiStatus status = NITI_OK;
  for (int i = 0; i < 3 && status == NITI_OK; ++i) status = backend->ops->alloc(backend, &memory[i], bytes[i]);
  feed->table = memory[0];
  feed->picks = memory[1];
  feed->labels = memory[2];
  if (status != NITI_OK) {
    niti_feed_close(feed);
    return status;
  }
  backend->ops->upload(backend, feed->table, table, table_bytes);
  *out = feed;
  return NITI_OK;
}

void niti_feed_close(NitiFeed *feed) {
  if (!feed) return;
  const NitiBackendOps *ops = feed->backend->ops;
  if (feed->table) ops->release(feed->backend, feed->table);
  if (feed->picks) ops->release(feed->backend, feed->picks);
  if (feed->labels) ops->release(feed->backend, feed->labels);
  if (feed->streamed) ops->release(feed->backend, feed->streamed);
  for (int i = 0; i < RESIDENT_SETS; ++i) {
    if (feed->resident[i].device) ops->release(feed->backend, feed->resident[i].device);
  }
  free(feed);
}

/* The batch's source images where the backend can read them. */
static NitiStatus locate_images(const uint8_t **out, NitiFeed *feed, const NitiBatch *batch) {
  NitiBackend *b = feed->backend;
  *out = batch->images;
  if (b->ops->host_memory) return NITI_OK;
  const size_t image = niti_shape_image(batch->source);
  if (batch->resident) {
    for (int i = 0; i < RESIDENT_SETS; ++i) {
      Copy *copy = &feed->resident[i];
      if (!copy->device) {
        const size_t bytes = image * (size_t)batch->source.n;
        NITI_TRY(b->ops->alloc(b, &copy->device, bytes));
        b->ops->upload(b, copy->device, batch->images, bytes);
        copy->host = batch->images;
      }
      if (copy->host == batch->images) {
        *out = copy->device;
        return NITI_OK;
      }
    }
    return niti_fail(NITI_ERROR_ARGUMENT, "more than %d data sets in one feed", RESIDENT_SETS);
  }
  const size_t room = image * (size_t)feed->batch;
  if (feed->streamed_bytes < room) {
    if (feed->streamed) b->ops->release(b, feed->streamed);
    feed->streamed_bytes = 0;
    NITI_TRY(b->ops->alloc(b, &feed->streamed, room));
    feed->streamed_bytes = room;
  }
  b->ops->upload(b, feed->streamed, batch->images, image * (size_t)batch->count);
  *out = feed->streamed;
  return NITI_OK;
}

NitiStatus niti_feed_batch(NitiFeed *feed, NitiNetwork *net, const NitiBatch *batch) {
  NitiBackend *b = feed->backend;
  const uint8_t *images = NULL;
  NITI_TRY(locate_images(&images, feed, batch));
  niti_network_set_batch(net, batch->count);
  b->ops->upload(b, feed->picks, batch->picks, (size_t)batch->count * sizeof *batch->picks);
  b->ops->upload(b, feed->labels, batch->labels, (size_t)batch->count * sizeof *batch->labels);
  b->ops->input(b, &net->input, images, batch->source, feed->picks, feed->table, feed->exponent);
  return NITI_OK;
}

const int32_t *niti_feed_labels(const NitiFeed *feed) { return feed->labels; }
