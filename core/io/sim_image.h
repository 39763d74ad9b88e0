/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Simulated devices, inside io/: the content of one device, sparse and shared with its copies until written. Not
 * locked; a test that gets no memory aborts. */
#ifndef TER_SIM_IMAGE_H
#define TER_SIM_IMAGE_H

#include "util/base.h"

struct ter_sim_image;

struct ter_sim_image *ter_sim_image_new(uint64_t bytes); /* of zeros */
struct ter_sim_image *ter_sim_image_clone(const struct ter_sim_image *image);
void ter_sim_image_free(struct ter_sim_image *image); /* NULL is fine */
uint64_t ter_sim_image_bytes(const struct ter_sim_image *image);

/* The range lies within the image: the caller checked. */
void ter_sim_image_read(const struct ter_sim_image *image, uint64_t offset, void *buf, uint64_t bytes);
void ter_sim_image_write(struct ter_sim_image *image, uint64_t offset, const void *buf, uint64_t bytes);
void ter_sim_image_zero(struct ter_sim_image *image, uint64_t offset, uint64_t bytes);
uint64_t ter_sim_image_hash(const struct ter_sim_image *image);

void *ter_sim_alloc(size_t bytes); /* zeroed, or abort() */
void *ter_sim_grow(void *old, size_t nr, size_t bytes);
uint64_t ter_sim_draw(uint64_t *state, uint64_t below); /* 0..below-1 */

#endif
