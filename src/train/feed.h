/* The way of a batch from the loader into the network: raw pixels and picks -> the input tensor; labels to the backend. */
#ifndef NITI_TRAIN_FEED_H
#define NITI_TRAIN_FEED_H

#include "data/loader.h"
#include "model/network.h"

typedef struct NitiFeed NitiFeed;

/* For batches of at most `batch` images. mean, std: the recipe's, in millionths, one a channel of `input`. */
NitiStatus niti_feed_open(NitiFeed **out, NitiBackend *backend, NitiShape input, int32_t batch, const int32_t *mean,
                          const int32_t *std);
void niti_feed_close(NitiFeed *feed);
/* Brings a batch to the backend; `batch` may go afterwards. A resident batch's images are copied there once, if at all and if
 * they fit; else those of the batch each time. */
NitiStatus niti_feed_batch(NitiFeed *feed, const NitiBatch *batch);
/* The batch -> net->input: one operation. */
void niti_feed_input(NitiFeed *feed, NitiNetwork *net);
/* This batch's labels, in backend memory. */
const int32_t *niti_feed_labels(const NitiFeed *feed);
/* What niti_feed_input depends on beside the contents of backend memory: the images' place and shape. */
const uint8_t *niti_feed_images(const NitiFeed *feed, NitiShape *source);

#endif
