/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counters: the one truth for space, a btree of numbers changed in the transaction that causes the change
 *
 * Position: inode = kind << 56 | parameters, offset 0, snapshot 0. Values are 1..4 signed le64.
 *
 *   kind            parameters (byte 6 downward)                        counters
 *   1 REPLICAS      data type, nr devs, nr required, devs[0..3] sorted  sectors (logical)
 *   2 DEV           data type, member                                   buckets, live sectors, fragmented sectors
 *   3 COMPRESSION   algorithm slot                                      extents, raw sectors, stored sectors
 *   4 INODES        -                                                   inodes
 *   5 BTREE         btree id                                            nodes, sectors
 *   6 RESERVED      -                                                   sectors (logical) promised by RESERVATION keys
 * devs of REPLICAS: byte 3 is the first; unused ones are 0xff.
 */
#ifndef TER_ACCOUNTING_H
#define TER_ACCOUNTING_H

#include "btree/key.h"
#include "sb/sb.h"

enum ter_counter_kind { TER_COUNT_REPLICAS = 1, TER_COUNT_DEV, TER_COUNT_COMPRESSION, TER_COUNT_INODES, TER_COUNT_BTREE, TER_COUNT_RESERVED };

struct ter_pos ter_counter_replicas(const struct ter_replicas_entry *entry);
struct ter_pos ter_counter_dev(enum ter_data_type type, unsigned dev_idx);
struct ter_pos ter_counter_compression(unsigned slot);
struct ter_pos ter_counter_inodes(void);
struct ter_pos ter_counter_btree(enum ter_btree_id btree);
enum ter_counter_kind ter_counter_kind(struct ter_pos pos); /* 0: unknown */
bool ter_counter_parse_replicas(struct ter_pos pos, struct ter_replicas_entry *ret);

#endif
