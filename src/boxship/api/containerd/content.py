"""The Content service: blobs by digest, ingestions by ref (containerd, api/services/content/v1)."""

from boxship.protobuf import (
    Empty,
    Enum,
    FieldMask,
    Message,
    Service,
    Timestamp,
    bidi,
    binary,
    enum,
    int64,
    mapping,
    message,
    repeated,
    server_stream,
    string,
    unary,
)


class WriteAction(Enum, name="containerd.services.content.v1.WriteAction"):
    STAT = 0
    WRITE = 1
    COMMIT = 2


class Info(Message, name="containerd.services.content.v1.Info"):
    digest: str = string(1)
    size: int = int64(2)
    created_at: Timestamp | None = message(3, Timestamp)
    updated_at: Timestamp | None = message(4, Timestamp)
    labels: dict[str, str] = mapping(5, string)


class InfoRequest(Message, name="containerd.services.content.v1.InfoRequest"):
    digest: str = string(1)


class InfoResponse(Message, name="containerd.services.content.v1.InfoResponse"):
    info: Info | None = message(1, Info)


class UpdateRequest(Message, name="containerd.services.content.v1.UpdateRequest"):
    info: Info | None = message(1, Info)
    update_mask: FieldMask | None = message(2, FieldMask)


class UpdateResponse(Message, name="containerd.services.content.v1.UpdateResponse"):
    info: Info | None = message(1, Info)


class ListContentRequest(Message, name="containerd.services.content.v1.ListContentRequest"):
    filters: list[str] = repeated(1, string)


class ListContentResponse(Message, name="containerd.services.content.v1.ListContentResponse"):
    info: list[Info] = repeated(1, Info)


class DeleteContentRequest(Message, name="containerd.services.content.v1.DeleteContentRequest"):
    digest: str = string(1)


class ReadContentRequest(Message, name="containerd.services.content.v1.ReadContentRequest"):
    digest: str = string(1)
    offset: int = int64(2)
    size: int = int64(3)


class ReadContentResponse(Message, name="containerd.services.content.v1.ReadContentResponse"):
    offset: int = int64(1)
    data: bytes = binary(2)


class Status(Message, name="containerd.services.content.v1.Status"):
    started_at: Timestamp | None = message(1, Timestamp)
    updated_at: Timestamp | None = message(2, Timestamp)
    ref: str = string(3)
    offset: int = int64(4)
    total: int = int64(5)
    expected: str = string(6)


class StatusRequest(Message, name="containerd.services.content.v1.StatusRequest"):
    ref: str = string(1)


class StatusResponse(Message, name="containerd.services.content.v1.StatusResponse"):
    status: Status | None = message(1, Status)


class ListStatusesRequest(Message, name="containerd.services.content.v1.ListStatusesRequest"):
    filters: list[str] = repeated(1, string)


class ListStatusesResponse(Message, name="containerd.services.content.v1.ListStatusesResponse"):
    statuses: list[Status] = repeated(1, Status)


class WriteContentRequest(Message, name="containerd.services.content.v1.WriteContentRequest"):
    action: int = enum(1)  # WriteAction
    ref: str = string(2)
    total: int = int64(3)
    expected: str = string(4)
    offset: int = int64(5)
    data: bytes = binary(6)
    labels: dict[str, str] = mapping(7, string)


class WriteContentResponse(Message, name="containerd.services.content.v1.WriteContentResponse"):
    action: int = enum(1)  # WriteAction
    started_at: Timestamp | None = message(2, Timestamp)
    updated_at: Timestamp | None = message(3, Timestamp)
    offset: int = int64(4)
    total: int = int64(5)
    digest: str = string(6)


class AbortRequest(Message, name="containerd.services.content.v1.AbortRequest"):
    ref: str = string(1)


class Content(Service, name="containerd.services.content.v1.Content"):
    Info = unary(InfoRequest, InfoResponse)
    Update = unary(UpdateRequest, UpdateResponse)
    List = server_stream(ListContentRequest, ListContentResponse)
    Delete = unary(DeleteContentRequest, Empty)
    Read = server_stream(ReadContentRequest, ReadContentResponse)
    Status = unary(StatusRequest, StatusResponse)
    ListStatuses = unary(ListStatusesRequest, ListStatusesResponse)
    Write = bidi(WriteContentRequest, WriteContentResponse)
    Abort = unary(AbortRequest, Empty)
