"""The Leases service: a lease keeps what was made under it from garbage collection."""

import os
import time

from boxship.api.containerd.context import lease, required_namespace
from boxship.api.containerd.leases import (
    AddResourceRequest,
    CreateRequest,
    CreateResponse,
    DeleteRequest,
    DeleteResourceRequest,
    Lease,
    ListRequest,
    ListResourcesRequest,
    ListResourcesResponse,
    ListResponse,
    Resource,
)
from boxship.containerd.filters import message_lookup, parse
from boxship.containerd.gc import Collector
from boxship.containerd.records import Records, check_labels, now
from boxship.errors import InvalidArgument, NotFound
from boxship.image.database import Database
from boxship.protobuf import Empty

_TYPES = ("content", "ingests", "images")


class LeasesService:
    def __init__(self, database: Database, records: "Records[Lease]", collector: Collector) -> None:
        self._database = database
        self._records = records
        self._collector = collector

    async def Create(self, request: CreateRequest) -> CreateResponse:
        id = request.id or f"{time.time_ns()}-{os.urandom(3).hex()}"
        created = Lease(id=id, created_at=now(), labels=check_labels(request.labels))
        await self._records.create(required_namespace(), id, created, durable=False)
        return CreateResponse(lease=created)

    async def Delete(self, request: DeleteRequest) -> Empty:
        namespace = required_namespace()
        with self._database.transaction():
            self._records.delete(namespace, request.id)
            self._database.run("DELETE FROM lease_resources WHERE namespace=? AND lease=?", (namespace, request.id))
        if request.sync:
            await self._collector.collect()
        else:
            self._collector.schedule()
        return Empty()

    async def List(self, request: ListRequest) -> ListResponse:
        matches = parse(list(request.filters))
        found = self._records.list(required_namespace())
        return ListResponse(leases=[one for one in found if matches(message_lookup(one))])

    async def AddResource(self, request: AddResourceRequest) -> Empty:
        namespace, resource = self._resource(request.id, request.resource)
        add_resource(self._database, namespace, request.id, resource.type, resource.id)
        return Empty()

    async def DeleteResource(self, request: DeleteResourceRequest) -> Empty:
        namespace, resource = self._resource(request.id, request.resource)
        self._database.run(
            "DELETE FROM lease_resources WHERE namespace=? AND lease=? AND type=? AND id=?",
            (namespace, request.id, resource.type, resource.id),
        )
        return Empty()

    async def ListResources(self, request: ListResourcesRequest) -> ListResourcesResponse:
        namespace = required_namespace()
        self._records.get(namespace, request.id)
        rows = self._database.rows(
            "SELECT type, id FROM lease_resources WHERE namespace=? AND lease=? ORDER BY type, id",
            (namespace, request.id),
        )
        return ListResourcesResponse(resources=[Resource(type=type, id=id) for type, id in rows])

    def _resource(self, id: str, resource: "Resource | None") -> "tuple[str, Resource]":
        namespace = required_namespace()
        self._records.get(namespace, id)
        if resource is None or not resource.id:
            raise InvalidArgument("lease resource must not be empty")
        if resource.type not in _TYPES and not resource.type.startswith("snapshots/"):
            raise InvalidArgument(f"unknown lease resource type {resource.type!r}")
        return namespace, resource


def add_resource(database: Database, namespace: str, lease_id: str, type: str, id: str) -> None:
    database.run(
        "INSERT OR IGNORE INTO lease_resources (namespace, lease, type, id) VALUES (?,?,?,?)",
        (namespace, lease_id, type, id),
    )


def protect(database: Database, type: str, id: str) -> None:
    """Put what was just made under the current call's lease, if it has one; raises NotFound when it is gone."""
    if lease_id := lease.get():
        if not database.row(
            "SELECT 1 FROM records WHERE kind='lease' AND namespace=? AND name=?",
            (required_namespace(), lease_id),
        ):
            raise NotFound(f"lease {lease_id!r}: not found")
        add_resource(database, required_namespace(), lease_id, type, id)
