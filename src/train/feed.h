/* The way of a batch from the loader to the backend: source images where the backend can read them, samples and labels bound. */
#ifndef NITI_TRAIN_FEED_H
#define NITI_TRAIN_FEED_H

#include "data/loader.h"
#include "model/network.h"

typedef struct NitiFeed NitiFeed;

/* For batches of at most `batch` images. */
NitiStatus niti_feed_open(NitiFeed **out, NitiBackend *backend, int32_t batch);
void niti_feed_close(NitiFeed *feed);
/* Brings a batch's images to the backend and binds them, its samples, labels and size. A resident batch's images are copied there
 * once, if at all and if they fit; else those of the batch each time. The bindings hold until the next call; the batch must stay
 * until they have been run. */
NitiStatus niti_feed_batch(NitiFeed *feed, const NitiBatch *batch, NitiBindings *bindings);

#endif
