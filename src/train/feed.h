/* Moves a batch from the loader to the backend: copies source images where the backend reads them, binds samples and labels. */
#ifndef NITI_TRAIN_FEED_H
#define NITI_TRAIN_FEED_H

#include "data/loader.h"
#include "model/network.h"

typedef struct NitiFeed NitiFeed;

/* For batches of at most `batch` images. */
NitiStatus niti_feed_open(NitiFeed **out, NitiBackend *backend, int32_t batch);
void niti_feed_close(NitiFeed *feed);
/* Copies a batch's images to the backend and binds them with its samples, labels and size. Resident images are copied at most
 * once, if they fit; otherwise each call copies the batch's. The bindings are valid until the next call; the batch must remain
 * valid until they have been run. */
NitiStatus niti_feed_batch(NitiFeed *feed, const NitiBatch *batch, NitiBindings *bindings);

#endif
